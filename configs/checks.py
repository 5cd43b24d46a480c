"""Strict checks of configuration values."""

from typing import Any

from configs.errors import ConfigError


def check_type(name: str, value: object, expected: Any) -> None:
    """Raises ConfigError unless `value` has the annotated type: a bool is no int, only an int may stand for a float."""
    if expected is float:
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
    elif expected is int:
        good = isinstance(value, int) and not isinstance(value, bool)
    elif isinstance(expected, type):
        good = isinstance(value, expected)
    else:
        good = isinstance(value, tuple)
    if not good:
        raise ConfigError(f"{name} is {value!r}; it must be {getattr(expected, '__name__', expected)}")


def check_choices(config: object, choices: dict[str, tuple[str, ...]]) -> None:
    """Raises ConfigError where a field is none of its choices."""
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise ConfigError(f"{name} is {getattr(config, name)!r}; choose one of {', '.join(allowed)}")


def check_ranges(config: object, ranges: dict[str, tuple[float, float]]) -> None:
    """Raises ConfigError where a field lies outside its closed range; NaN lies outside every range."""
    for name, (low, high) in ranges.items():
        if not low <= getattr(config, name) <= high:
            raise ConfigError(f"{name} is {getattr(config, name)}; it must lie between {low} and {high}")
