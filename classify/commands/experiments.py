"""The commands that extract and train several times: `stage2 compare` and `demo`."""

import sys
from pathlib import Path
from typing import Any

import click

from configs import options
from configs.errors import EXIT_SKIPPED
from configs.process.console import console
from configs.resnet_stage2_config import BACKBONES, ResNetStage2Config
from configs.train_options import TrainOptions

_WEIGHTS = "Weights of the ResNets: imagenet, random, or a checkpoint file."
_OF_PRESET: dict[str, Any] = {"default": None, "show_default": "the preset's"}


@click.command()
@options.option(ResNetStage2Config, "data_path", default=None, show_default=ResNetStage2Config.data_path)
@options.path_option("out", "Folder for the runs and the table.", required=True)
@click.option("--backbones", default="hog,resnet18", help=f"Comma-separated list of {', '.join(BACKBONES)}.")
@click.option("--modes", default="cached,end_to_end", help="Comma-separated list of cached, end_to_end.")
@options.option(ResNetStage2Config, "weights", **_OF_PRESET, help=_WEIGHTS)
@options.options(ResNetStage2Config, ("crop_size", "epochs", "batch_size", "learning_rate"), **_OF_PRESET)
@options.options(ResNetStage2Config, ("seed", "frame_interval", "panorama", "num_workers", "device"), **_OF_PRESET)
@options.option(TrainOptions, "max_skipped")
@options.config_file
@options.as_json
def compare(
    out: Path, backbones: str, modes: str, max_skipped: float, config_file: Path | None, as_json: bool, **given: Any
) -> int:
    """Train several backbones, cached and end to end, on the same split, and print a table."""
    from classify.experiments.compare import compare as run
    from classify.experiments.compare import compare_table

    settings = options.read_toml(config_file) | {name: value for name, value in given.items() if value is not None}
    with console(sys.stderr):
        comparison = run(out, backbones.split(","), modes.split(","), settings, max_skipped)
    options.print_result(comparison, as_json, compare_table)
    return EXIT_SKIPPED if comparison["damaged"] else 0


@click.command()
@options.path_option("out", "Folder for data, store, run and report.", default="stage2-demo")
@click.option("--seed", default=0, help="Seed of all random numbers.")
def demo(out: Path, seed: int) -> None:
    """Draw a small dataset, extract, train, evaluate and write a report; works offline."""
    from classify.demo import run_demo

    with console(sys.stdout):
        made = run_demo(out, seed)
    click.echo(
        f"\nEverything is in {out}:\n  data      {made.data}\n  features  {made.store}\n  run       {made.run.folder}"
        f"\n  report    {made.report}"
    )
