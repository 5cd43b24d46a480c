"""What the commands share: options made from the config fields that they set, settings files, and printed results.

`--help` imports nothing but click and configs.
"""

import json
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from configs.errors import ConfigError
from configs.extraction_config import ExtractionConfig
from configs.printable import printable_lines
from configs.read_file import SETTINGS_BYTES, read_file
from configs.resnet_stage2_config import ResNetStage2Config
from configs.settings import Setting, check_name, declared, find_field

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def option(config_class: Any, name: str, **changes: Any) -> Decorator:
    """The option of a config's field `name`; `changes` override the arguments of `click.option`.

    The command receives the value as `name`. The config checks ranges (`configs.settings.check`), so that options,
    TOML files and Python code get the same errors; click would also accept NaN.
    """
    item = find_field(config_class, name)
    setting: Setting = item.metadata["setting"]
    arguments: dict[str, Any] = {"default": item.default, "help": setting.help}
    if item.type is bool:
        arguments |= {"is_flag": True, "default": False}
        if item.default:  # the flag turns the setting off
            arguments["callback"] = lambda _context, _parameter, given: not given
    else:
        arguments["type"] = click.Choice(setting.choices) if setting.choices else item.type
        if item.default == "":
            arguments["show_default"] = False  # the help text describes it
    return click.option(f"--{setting.option or name}", name, **(arguments | changes))


def options(config_class: Any, names: Sequence[str], **changes: Any) -> Decorator:
    """The options of several fields, in this order."""
    return stack(*(option(config_class, name, **changes) for name in names))


def stack(*decorators: Decorator) -> Decorator:
    """Several options as one decorator, in the order of the help."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def path_option(name: str, text: str, **arguments: Any) -> Decorator:
    """An option whose value is a path."""
    return click.option(f"--{name}", type=click.Path(path_type=Path), help=text, **arguments)


as_json = click.option("--json", "as_json", is_flag=True, help="Print only one JSON object on standard output.")
config_file = click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="TOML file with settings; options override it."
)
overwrite = click.option("--overwrite", is_flag=True, help="Replace existing output files.")
device = option(ExtractionConfig, "device")
store_path = click.argument("path", metavar="STORE", type=click.Path(path_type=Path))


def run_config(context: click.Context, settings: dict[str, Any]) -> ResNetStage2Config:
    """The run of a training command. Typed options override the --config file, and the file overrides `settings`.

    Raises:
        ConfigError: a setting is unknown, has the wrong type or is out of range; the message names it.
    """
    known = declared(ResNetStage2Config)
    typed = {
        name: value
        for name, value in context.params.items()
        if name in known and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    return ResNetStage2Config.from_dict(settings | read_toml(context.params["config_file"]) | typed)


def read_toml(path: Path | None) -> dict[str, Any]:
    """The settings in a TOML file, or none without a path; the tables [classes] and [split] map names to lists.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or has an unknown key. The config checks the values.
    """
    if path is None:
        return {}
    try:
        settings = tomllib.loads(read_file(path, max_bytes=SETTINGS_BYTES).decode())
        for name in settings:
            check_name(ResNetStage2Config, name)
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be read ({error.strerror}); check --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"the settings file {path} is not valid TOML ({error}); correct it") from error
    except ConfigError as error:
        raise ConfigError(f"the settings file {path} has an {error}") from error
    return settings


def print_result(values: dict[str, Any], as_json: bool, text: Callable[[dict[str, Any]], str]) -> None:
    """Prints a command's result on standard output: as one JSON object, or as `text` words it."""
    click.echo(json.dumps(values, indent=1) if as_json else printable_lines(text(values)))
