"""The options of the commands, made from the config fields that they set.

Each command has one decorator here, which lists its options in the order of the help.
`--help` imports nothing but click and configs.
"""

import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from configs.errors import ConfigError
from configs.extraction_config import ExtractionConfig
from configs.presets import PRESETS
from configs.read_file import SETTINGS_BYTES, read_file
from configs.resnet_stage2_config import BACKBONES, ResNetStage2Config
from configs.settings import Setting, check_name, declared, find_field
from configs.splits import SPLIT_NAMES
from configs.train_options import TrainOptions

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
run_folder = click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
overwrite = click.option("--overwrite", is_flag=True, help="Replace existing output files.")
run_weights = click.option(
    "--weights", default="", show_default=False, help="The weights file of the run's backbone, if it was moved."
)
run_panorama = option(ResNetStage2Config, "panorama", default=None, show_default="the run's")
device = option(ExtractionConfig, "device")
store_path = click.argument("path", metavar="STORE", type=click.Path(path_type=Path))

extract = stack(options(ExtractionConfig, list(declared(ExtractionConfig))), as_json)

preset = click.argument("preset", required=False, metavar=f"[{'|'.join(item.name for item in PRESETS)}]")
train = stack(
    options(ResNetStage2Config, ("backbone_name", "visual_feature_dim", "fusion_strategy", "freeze_backbone")),
    options(ResNetStage2Config, ("weights", "crop_size", "epochs", "batch_size", "learning_rate", "weight_decay")),
    options(ResNetStage2Config, ("balance", "use_geometric", "use_scene_context")),
    options(ResNetStage2Config, ("data_path", "frame_interval", "panorama", "num_workers")),
    options(TrainOptions, ("max_skipped", "store")),
    options(ResNetStage2Config, ("feature_memory", "checkpoint_dir")),
    options(TrainOptions, ("overwrite",)),
    click.option(
        "--resume",
        type=click.Choice(("auto", "no")),
        default="no",
        callback=lambda _context, _parameter, value: value == "auto",
        help=declared(TrainOptions)["resume"].help,
    ),
    options(ResNetStage2Config, ("device", "log_interval", "seed")),
    options(TrainOptions, ("seeds", "step")),
    config_file,
    as_json,
)

finetune = stack(
    options(TrainOptions, ("start",)),
    options(ResNetStage2Config, ("batchnorm", "freeze_blocks", "backbone_lr", "layer_decay", "augment", "amp")),
    options(ResNetStage2Config, ("accumulate", "checkpointing", "crop_cache")),
    train,
)

_OF_PRESET: dict[str, Any] = {"default": None, "show_default": "the preset's"}
compare = stack(
    option(ResNetStage2Config, "data_path", default=None, show_default=ResNetStage2Config.data_path),
    path_option("out", "Folder for the runs and the table.", required=True),
    click.option("--backbones", default="hog,resnet18", help=f"Comma-separated list of {', '.join(BACKBONES)}."),
    click.option("--modes", default="cached,end_to_end", help="Comma-separated list of cached, end_to_end."),
    option(
        ResNetStage2Config,
        "weights",
        **_OF_PRESET,
        help="Weights of the ResNets: imagenet, random, or a checkpoint file.",
    ),
    options(ResNetStage2Config, ("crop_size", "epochs", "batch_size", "learning_rate"), **_OF_PRESET),
    options(ResNetStage2Config, ("seed", "frame_interval", "panorama", "num_workers", "device"), **_OF_PRESET),
    options(TrainOptions, ("max_skipped",)),
    config_file,
    as_json,
)

evaluate = stack(
    path_option("store", "Evaluate on this feature store."),
    path_option("data_path", "Evaluate on the images of this JRDB-format folder."),
    click.option("--split", type=click.Choice(SPLIT_NAMES), default="test", help="Split to evaluate on."),
    options(TrainOptions, ("max_skipped",)),
    run_panorama,
    run_weights,
    device,
    as_json,
)

predict = stack(
    path_option("data_path", "JRDB-format folder with images/ and labels/.", required=True),
    path_option("out", "JSON file to write.", required=True),
    click.option(
        "--pairs",
        "pairing",
        type=click.Choice(("labelled", "near", "all")),
        show_default="labelled; near if no pair is labelled",
        help="Classify the annotated pairs, pairs of people near each other, or all pairs.",
    ),
    path_option("draw", "Folder for images with the predictions drawn in, in a folder for each scene."),
    option(ExtractionConfig, "frame_interval"),
    click.option("--scene", "scenes", multiple=True, help="Only this scene; may be repeated."),
    option(ExtractionConfig, "max_skipped"),
    run_panorama,
    overwrite,
    run_weights,
    device,
    as_json,
)

export = stack(
    click.option(
        "--format",
        "kind",
        type=click.Choice(("onnx", "pt2", "safetensors", "torchscript")),
        required=True,
        help="File format; torchscript is deprecated.",
    ),
    path_option("out", "File to write.", required=True),
    overwrite,
    run_weights,
    as_json,
)

demo = stack(
    path_option("out", "Folder for data, store, run and report.", default="stage2-demo"),
    click.option("--seed", default=0, help="Seed of all random numbers."),
)

synth = stack(
    click.option("--scenes", type=int, help="Number of scenes.  [default: 25; with --labels: all]"),
    click.option("--frames", type=int, help="Frames per scene.  [default: 10; with --labels: all]"),
    click.option("--people", default=18, help="Approximate number of people per frame."),
    click.option("--seed", default=0, help="Seed of all random numbers."),
    path_option("labels", "Draw panoramas that match the annotations in this folder."),
)

verify = stack(
    path_option("data_path", "JRDB-format folder; also reads every image and compares it with the store."), as_json
)

repair = stack(
    option(ExtractionConfig, "data_path"),
    option(
        ExtractionConfig,
        "weights",
        default="",
        show_default=False,
        help="The weights file of the backbone, if the store needs one.",
    ),
    option(
        ExtractionConfig, "batch_size", help="Crops per batch, as in `extract`; on a GPU, use the extraction's value."
    ),
    options(ExtractionConfig, ("num_workers", "device")),
    as_json,
)


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


def choose_preset(as_json: bool) -> str:
    """Lists the presets, asks for a number and returns the name of that preset.

    Raises:
        ConfigError: there is no terminal to ask at, or the output is JSON.
    """
    if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(f"no preset is named; run `stage2 run NAME` with one of {', '.join(p.name for p in PRESETS)}")
    for number, item in enumerate(PRESETS, 1):
        click.echo(f"  {number}  {item.name:<16} {item.description}")
    return PRESETS[click.prompt("Preset", type=click.IntRange(1, len(PRESETS)), default=1) - 1].name


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
