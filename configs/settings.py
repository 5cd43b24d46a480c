"""Declares a setting once: its default, help, option, choices, range and roles.

`setting` makes a dataclass field. The command line options (`configs/options.py`), the checks (`check`) and the lists
of settings that may differ between two runs (`names_with_role`) all read the field's declaration.
"""

from dataclasses import dataclass, field, fields
from typing import Any

from configs.errors import ConfigError

# Roles of a setting.
HEAD = "head"  # a run and the run that it starts from must agree
FREE_ON_RESUME = "free_on_resume"  # may differ when a run is resumed
TRAINING = "training"  # `finetune --from` does not reuse the value of the run that it starts from
MACHINE = "machine"  # left out of the settings in an exported model


@dataclass(frozen=True)
class Setting:
    """What is known about a config field besides its type and default."""

    help: str  # for the option; may be empty where the field has no option
    option: str  # the option's name without dashes; "": the field's name. On a boolean, the option inverts the default.
    choices: tuple[str, ...]  # the allowed values; (): any
    low: float | None  # the smallest allowed value
    high: float | None  # the largest allowed value
    roles: tuple[str, ...]


def setting(
    default: Any,
    *,
    help: str = "",  # noqa: A002 - the name that click uses
    option: str = "",
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    roles: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with its declaration; the parameters are those of `Setting`."""
    return field(default=default, metadata={"setting": Setting(help, option, choices, low, high, roles)})


def declared(config_class: Any) -> dict[str, Setting]:
    """The declarations of a config class's fields, by field name and in field order."""
    return {item.name: item.metadata["setting"] for item in fields(config_class)}


def names_with_role(config_class: Any, role: str) -> tuple[str, ...]:
    """The names of the fields that have `role`, in field order."""
    return tuple(name for name, item in declared(config_class).items() if role in item.roles)


def check(config: Any) -> None:
    """Checks the type, choices and range of every field of a config.

    A float field also takes an int. A bool is not a number. NaN is outside every range.

    Raises:
        ConfigError: a value is not allowed; the message names the field, its value and what is expected.
    """
    for item in fields(config):
        value, declaration = getattr(config, item.name), item.metadata["setting"]
        _check_type(item.name, value, item.type)
        if declaration.choices and value not in declaration.choices:
            raise ConfigError(f"{item.name} is {value!r}; choose one of {', '.join(declaration.choices)}")
        _check_range(item.name, value, declaration)


def _check_type(name: str, value: object, expected: Any) -> None:
    if expected is float:
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
    elif expected is int:
        good = isinstance(value, int) and not isinstance(value, bool)
    elif isinstance(expected, type):
        good = isinstance(value, expected)
    else:  # tuple[...]
        good = isinstance(value, tuple)
    if not good:
        raise ConfigError(f"{name} is {value!r}; it must be {getattr(expected, '__name__', expected)}")


def _check_range(name: str, value: Any, declaration: Setting) -> None:
    low, high = declaration.low, declaration.high
    if low is not None and high is not None and not low <= value <= high:
        raise ConfigError(f"{name} is {value}; it must be between {low} and {high}")
