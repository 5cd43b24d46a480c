"""The options of the commands, beside what they set. click alone, so that `--help` needs nothing heavy."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from configs.errors import ConfigError
from configs.extraction_config import DTYPES, ON_ERROR, PERSONS, PRECISIONS
from configs.resnet_stage2_config import BACKBONES, BALANCES, BATCHNORMS, DEVICES, FUSIONS, ResNetStage2Config
from configs.splits import SPLIT_NAMES

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def options(*options: Decorator) -> Decorator:
    """Several options as one decorator, in the order in which help shows them."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


as_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else, on stdout."
)
device_option = click.option("--device", type=click.Choice(DEVICES), default="auto", help="Where to compute.")
data_path_option = click.option(
    "--data_path", default="../dataset", help="JRDB-format folder with images/ and labels/."
)
max_skipped_option = click.option(
    "--max_skipped",
    type=float,
    default=0.01,
    help="Stop when a larger share of frames, people or pairs is unusable.",
)
num_workers_option = click.option(
    "--num_workers", default=4, help="Threads that read, decode and crop ahead of the model."
)


extract_options = options(
    data_path_option,
    click.option("--store", default="", show_default=False, help="Store to write.  [default: stores/<fingerprint>]"),
    click.option("--backbone", type=click.Choice(BACKBONES), default="resnet18"),
    click.option("--weights", default="imagenet", help="imagenet, random, a file, or a run's folder."),
    click.option("--crop_size", default=112, help="Edge of a person crop in pixels."),
    click.option("--frame_interval", default=1, help="Take every n-th annotated frame of a scene."),
    click.option("--persons", type=click.Choice(PERSONS), default="all", help="All people, or those in pairs alone."),
    click.option("--views", type=click.IntRange(1, 2), default=1, help="2: the mirrored crops too."),
    click.option("--dtype", type=click.Choice(DTYPES), default="float16", help="Number type in the store."),
    click.option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="float32",
        help="Of the forward pass, on a GPU; float16 errs by up to 0.6 %, bfloat16 5 %.",
    ),
    click.option("--batch_size", default=0, help="Crops a batch; 0: the fastest of a few on a CPU, 256 on a GPU."),
    num_workers_option,
    device_option,
    click.option("--on_error", type=click.Choice(ON_ERROR), default="skip", help="What an unusable item does."),
    max_skipped_option,
    click.option("--retry_skipped", is_flag=True, help="Try the units with unusable images again, and no others."),
    click.option("--update", is_flag=True, help="Accept changed data and compute only what changed."),
    click.option("--crops", is_flag=True, help="Store the crops too, in STORE/crops, for training end to end."),
    as_json_option,
)

train_options = options(
    click.option("--backbone", type=click.Choice(BACKBONES), default="resnet18", help="Visual backbone."),
    click.option("--visual_dim", default=256, help="Visual feature dimension of the head."),
    click.option("--fusion", type=click.Choice(FUSIONS), default="concat", help="How two people's features meet."),
    click.option("--freeze_backbone", is_flag=True, help="Train the head alone, on cached features."),
    click.option("--weights", default="imagenet", help="Of the backbone: imagenet, random, a file, or a run's folder."),
    click.option("--crop_size", default=112, help="Edge of a person crop in pixels."),
    click.option("--epochs", default=50),
    click.option("--batch_size", default=16, help="Pairs a batch."),
    click.option("--lr", default=1e-4, help="Learning rate."),
    click.option("--weight_decay", default=1e-5),
    click.option("--balance", type=click.Choice(BALANCES), default="loss", help="The one owner of class imbalance."),
    click.option("--no_geometric", is_flag=True, help="Leave out spatial features 0-6."),
    click.option("--no_scene_context", is_flag=True, help="Leave out spatial feature 7."),
    data_path_option,
    click.option("--frame_interval", default=1, help="Take every n-th annotated frame of a scene."),
    num_workers_option,
    max_skipped_option,
    click.option(
        "--store",
        default="",
        show_default=False,
        help="Feature store; end to end, its crops.  [default: found; images]",
    ),
    click.option("--feature_memory", default=0.0, help="GiB for cached features, else streamed.  0: half of all."),
    click.option("--checkpoint_dir", default="", show_default=False, help="Run folder.  [default: a new one]"),
    click.option("--overwrite", is_flag=True, help="Replace the run that the folder holds."),
    click.option("--resume", type=click.Choice(("auto", "no")), default="no", help="Go on with the folder's run."),
    device_option,
    click.option("--log_interval", default=10, help="Batches between log lines."),
    click.option("--seed", default=42),
    click.option("--seeds", default=1, help="Train with so many seeds; report mean and deviation."),
    click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file; options win over it."),
    as_json_option,
)

_PRESETS: dict[str, Any] = {"default": None, "show_default": "the preset's"}  # file and preset settle what is not typed
compare_options = options(
    click.option("--data_path", show_default="../dataset", help="JRDB-format folder with images/ and labels/."),
    click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the runs and the table."),
    click.option("--backbones", default="hog,resnet18", help=f"Some of {', '.join(BACKBONES)}, with commas."),
    click.option("--modes", default="cached,end_to_end", help="How to train each: one of these, or both."),
    click.option("--weights", help="Of the ResNets: imagenet, random, or a checkpoint file.", **_PRESETS),
    click.option("--crop_size", type=int, help="Edge of a person crop in pixels.", **_PRESETS),
    click.option("--epochs", type=int, **_PRESETS),
    click.option("--batch_size", type=int, help="Pairs a batch.", **_PRESETS),
    click.option("--lr", "learning_rate", type=float, help="Learning rate.", **_PRESETS),
    click.option("--seed", type=int, **_PRESETS),
    click.option("--frame_interval", type=int, help="Take every n-th annotated frame of a scene.", **_PRESETS),
    click.option("--num_workers", type=int, help="Threads that read, decode and crop ahead of the model.", **_PRESETS),
    click.option("--device", type=click.Choice(DEVICES), help="Where to compute.", **_PRESETS),
    max_skipped_option,
    click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file; options win over it."),
    as_json_option,
)

finetune_options = options(
    click.option(
        "--from", "start", default="", show_default=False, help="Finished run to start from: its head, its data."
    ),
    click.option(
        "--batchnorm", type=click.Choice(BATCHNORMS), default="frozen", help="Whether BatchNorm figures move."
    ),
    click.option("--freeze_blocks", default=0, help="1-4: the stem and so many stages stay as they are."),
    click.option("--backbone_lr", default=0.0, help="Learning rate of the backbone.  0: --lr, as the head."),
    click.option("--layer_decay", default=1.0, help="A stage's learning rate over that of the next one."),
    click.option("--augment", is_flag=True, help="Mirror, shift, brighten and partly hide the training crops."),
    click.option("--amp", is_flag=True, help="The backbone trains in 16 bits: faster on a GPU, slower on most CPUs."),
    click.option("--accumulate", default=1, help="Parts of a batch that the backbone takes one after the other."),
    click.option("--checkpointing", is_flag=True, help="Compute activations again instead of keeping them."),
    click.option("--crop_cache", default=1.0, help="GiB of memory for decoded crops."),
)

run_weights_option = click.option(
    "--weights", default="", show_default=False, help="The run's backbone file, if it moved."
)
evaluate_options = options(
    click.option("--store", type=click.Path(path_type=Path), help="Feature store to evaluate on."),
    click.option("--data_path", type=click.Path(path_type=Path), help="Or a JRDB-format folder, from its images."),
    click.option("--split", type=click.Choice(SPLIT_NAMES), default="test"),
    run_weights_option,
    device_option,
    as_json_option,
)

predict_options = options(
    click.option("--data_path", required=True, type=click.Path(path_type=Path), help="JRDB-format folder."),
    click.option("--out", required=True, type=click.Path(path_type=Path), help="JSON file to write."),
    click.option("--pairs", type=click.Choice(("labelled", "near", "all")), default="labelled", help="Which pairs."),
    click.option("--draw", type=click.Path(path_type=Path), help="Folder for pictures of the answers."),
    click.option("--frame_interval", default=1, help="Take every n-th annotated frame of a scene."),
    click.option("--scene", "scenes", multiple=True, help="Only this scene; may be repeated."),
    run_weights_option,
    device_option,
    as_json_option,
)

synth_options = options(
    click.option("--scenes", type=int, help="How many scenes.  [default: 25; with --labels: all]"),
    click.option("--frames", type=int, help="Frames a scene.  [default: 10; with --labels: all]"),
    click.option("--people", default=18, help="People a frame, about."),
    click.option("--seed", default=0),
    click.option("--labels", type=click.Path(path_type=Path), help="Draw panoramas that fit these annotations."),
)

repair_options = options(
    data_path_option,
    click.option("--weights", default="", show_default=False, help="The backbone's file, if the store is of one."),
    click.option("--batch_size", default=0, help="Crops a batch, as in `extract`; on a GPU give the extraction's own."),
    num_workers_option,
    device_option,
    as_json_option,
)


# option -> field of ResNetStage2Config, where the names differ
_FIELD = {
    "backbone": "backbone_name",
    "visual_dim": "visual_feature_dim",
    "fusion": "fusion_strategy",
    "lr": "learning_rate",
}
_SWITCH = {"no_geometric": "use_geometric", "no_scene_context": "use_scene_context"}
_BESIDE = {"store", "max_skipped", "overwrite", "seeds", "config_file", "as_json", "preset", "resume", "start"}


def run_config(context: click.Context, settings: dict[str, Any]) -> ResNetStage2Config:
    """The run that a train command asks for: `settings` < those of its --config file < the options that were typed.

    Raises:
        ConfigError: a setting is unknown, of the wrong type or out of range; it is named.
    """
    given = context.params
    if given["config_file"] is not None:
        settings = settings | read_toml(given["config_file"])
    typed = {name for name in given if context.get_parameter_source(name) is ParameterSource.COMMANDLINE} - _BESIDE
    options = {_FIELD.get(name, name): given[name] for name in typed if name not in _SWITCH}
    switches = {_SWITCH[name]: not given[name] for name in typed if name in _SWITCH}
    return ResNetStage2Config.from_dict(settings | options | switches)


def read_toml(path: Path) -> dict[str, Any]:
    """The settings of a TOML file; the tables [classes] and [split] map names to lists.

    Raises:
        ConfigError: the file is missing or is no TOML; which keys are known is for the configuration to say.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the configuration {path} cannot be read ({error.strerror}); check --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"the configuration {path} is no valid TOML ({error}); mend it") from error
