"""The commands that train: `stage2 train`, `finetune` and `run`."""

import sys
from pathlib import Path
from typing import Any

import click

from configs import options, presets
from configs.errors import EXIT_SKIPPED, ConfigError
from configs.process.console import console
from configs.ranks import rank, world_size
from configs.resnet_stage2_config import ResNetStage2Config
from configs.settings import declared, from_options
from configs.train_options import TrainOptions

train_options = options.stack(
    options.options(ResNetStage2Config, ("backbone_name", "visual_feature_dim", "fusion_strategy", "freeze_backbone")),
    options.options(ResNetStage2Config, ("weights", "crop_size", "epochs", "batch_size", "learning_rate")),
    options.options(ResNetStage2Config, ("weight_decay", "balance", "use_geometric", "use_scene_context")),
    options.options(ResNetStage2Config, ("data_path", "frame_interval", "panorama", "num_workers")),
    options.options(TrainOptions, ("max_skipped", "store")),
    options.options(ResNetStage2Config, ("feature_memory", "checkpoint_dir")),
    options.options(TrainOptions, ("overwrite",)),
    click.option(
        "--resume",
        type=click.Choice(("auto", "no")),
        default="no",
        callback=lambda _context, _parameter, value: value == "auto",
        help=declared(TrainOptions)["resume"].help,
    ),
    options.options(ResNetStage2Config, ("device", "log_interval", "seed")),
    options.options(TrainOptions, ("seeds", "step")),
    options.config_file,
    options.as_json,
)

finetune_options = options.stack(
    options.options(TrainOptions, ("start",)),
    options.options(ResNetStage2Config, ("batchnorm", "freeze_blocks", "backbone_lr", "layer_decay", "augment", "amp")),
    options.options(ResNetStage2Config, ("accumulate", "checkpointing", "crop_cache")),
    train_options,
)


@click.command()
@train_options
@click.pass_context
def train(context: click.Context, /, **_: Any) -> int:
    """Train end to end, or with --freeze_backbone only the head, on cached features."""
    return _train(context, {})


@click.command()
@finetune_options
@click.pass_context
def finetune(context: click.Context, /, start: str, **_: Any) -> int:
    """Train backbone and head end to end; --from starts from a finished run."""
    from classify.pipeline import start_settings

    return _train(context, start_settings(Path(start)) if start else {})


@click.command()
@click.argument("preset", required=False, metavar=f"[{'|'.join(item.name for item in presets.PRESETS)}]")
@train_options
@click.pass_context
def run(context: click.Context, /, preset: str | None, **_: Any) -> int:
    """Train with a preset, or choose one from a list. Options override the preset's settings."""
    return _train(context, presets.preset(preset or _choose_preset(context.params["as_json"])).settings)


def _train(context: click.Context, settings: dict[str, Any]) -> int:
    config, training = options.run_config(context, settings), from_options(TrainOptions, context.params)
    from classify.pipeline import train as start
    from classify.report.results import finished_text

    with console(sys.stderr if context.params["as_json"] else sys.stdout):
        finished = start(config, training)
    results = finished.results | {"run": str(finished.folder)}
    if rank() == 0:
        options.print_result(results, context.params["as_json"], finished_text)
    # torchrun takes any other exit code than 0 for a crash and starts the training again
    return EXIT_SKIPPED if results["data"]["damaged"] and world_size() == 1 else 0


def _choose_preset(as_json: bool) -> str:
    names = [item.name for item in presets.PRESETS]
    if as_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError(f"no preset is named; run `stage2 run NAME` with one of {', '.join(names)}")
    for number, item in enumerate(presets.PRESETS, 1):
        click.echo(f"  {number}  {item.name:<16} {item.description}")
    return names[click.prompt("Preset", type=click.IntRange(1, len(names)), default=1) - 1]
