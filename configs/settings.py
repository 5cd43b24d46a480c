"""Declares a setting once: its default, help, option, choices, range and roles.

`setting` makes a dataclass field. The command line options (`configs/options.py`), the checks (`check`) and the lists
of settings that may differ between two runs (`names_with_role`) all read the field's declaration.
"""

from dataclasses import Field, dataclass, field, fields
from difflib import get_close_matches
from typing import Any, TypeVar

from configs.errors import ConfigError

# Roles of a setting.
HEAD = "head"  # a run and the run that it starts from must agree
FREE_ON_RESUME = "free_on_resume"  # may differ when a run is resumed
TRAINING = "training"  # `finetune --from` does not reuse the value of the run that it starts from
MACHINE = "machine"  # left out of the settings in an exported model

Config = TypeVar("Config")


@dataclass(frozen=True)
class Setting:
    """The declaration of a config field, except its type and default."""

    help: str  # the option's help text
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


def shared(config_class: Any, name: str) -> Any:
    """A dataclass field with the default and the declaration of another config's field `name`."""
    source = find_field(config_class, name)
    return field(default=source.default, metadata=source.metadata)


def find_field(config_class: Any, name: str) -> Field[Any]:
    """The field `name` of a config class."""
    return next(item for item in fields(config_class) if item.name == name)


def declared(config_class: Any) -> dict[str, Setting]:
    """The declarations of a config class's fields, by field name and in field order."""
    return {item.name: item.metadata["setting"] for item in fields(config_class)}


def names_with_role(config_class: Any, role: str) -> tuple[str, ...]:
    """The names of the fields that have `role`, in field order."""
    return tuple(name for name, item in declared(config_class).items() if role in item.roles)


def from_options(config_class: type[Config], values: dict[str, Any]) -> Config:
    """The config of a command's parsed options: the entries of `values` that are its fields. Raises ConfigError."""
    return config_class(**{name: values[name] for name in declared(config_class) if name in values})


def check_name(config_class: Any, name: str) -> None:
    """Raises ConfigError if a config has no field `name`; suggests the nearest field, also by its option's name."""
    known = declared(config_class)
    if name in known:
        return
    fields_by_word = {item.option: field_name for field_name, item in known.items() if item.option}
    fields_by_word |= {field_name: field_name for field_name in known}
    near = get_close_matches(name, fields_by_word, n=1)
    if near:
        raise ConfigError(f"unknown setting {name!r}; did you mean {fields_by_word[near[0]]!r}?")
    raise ConfigError(f"unknown setting {name!r}; the settings are {', '.join(known)}")


def check(config: Any) -> None:
    """Checks the type, choices and range of every field of a config.

    A float field also takes an int. A bool is not a number. NaN is outside every range.

    Raises:
        ConfigError: a value is not allowed; the message names the field, its value and what is expected.
    """
    for item in fields(config):
        value, declaration = getattr(config, item.name), item.metadata["setting"]
        name = _with_option(item.name, declaration)
        _check_type(name, value, item.type)
        if declaration.choices and value not in declaration.choices:
            raise ConfigError(f"{name} is {value!r}; choose one of {', '.join(declaration.choices)}")
        _check_range(name, value, declaration)


def _with_option(name: str, declaration: Setting) -> str:
    """The name in an error: the field's, and its option's if that differs."""
    return f"{name} (--{declaration.option})" if declaration.option else name


_TYPES = {str: "text", int: "an integer", float: "a number", bool: "true or false"}


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
        wanted = _TYPES.get(expected, getattr(expected, "__name__", "a tuple"))
        raise ConfigError(f"{name} is {value!r}; it must be {wanted}")


def _check_range(name: str, value: Any, declaration: Setting) -> None:
    low, high = declaration.low, declaration.high
    if low is not None and high is not None and not low <= value <= high:
        raise ConfigError(f"{name} is {value}; it must be between {low} and {high}")
