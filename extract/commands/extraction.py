"""`stage2 extract`, the batch extraction job, and `stage2 synth`, which draws data for it."""

import sys
from pathlib import Path
from typing import Any

import click

from configs import options
from configs.errors import EXIT_SKIPPED
from configs.extraction_config import ExtractionConfig
from configs.process.console import console
from configs.settings import declared


@click.command()
@options.options(ExtractionConfig, list(declared(ExtractionConfig)))
@options.as_json
def extract(as_json: bool, **settings: Any) -> int:
    """Extract the features of all people into a store; run again to resume."""
    config = ExtractionConfig(**settings)
    from extract.job import extract as run
    from store.commands.describe import store_text

    with console(sys.stderr if as_json else sys.stdout):
        summary = run(config).to_dict()
    options.print_result(summary, as_json, store_text)
    return EXIT_SKIPPED if summary["damaged"] else 0


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--scenes", type=int, help="Number of scenes.  [default: 25; with --labels: all]")
@click.option("--frames", type=int, help="Frames per scene.  [default: 10; with --labels: all]")
@click.option("--people", default=18, help="Approximate number of people per frame.")
@click.option("--seed", default=0, help="Seed of all random numbers.")
@options.path_option("labels", "Draw panoramas that match the annotations in this folder.")
def synth(out: Path, scenes: int | None, frames: int | None, people: int, seed: int, labels: Path | None) -> None:
    """Draw a JRDB-format dataset: panoramas of people, with annotations."""
    from extract.synth.dataset import draw_dataset, draw_for_labels

    if labels is not None:
        draw_for_labels(labels, out, scenes=scenes, frames=frames, seed=seed)
    else:
        scenes, frames = 25 if scenes is None else scenes, 10 if frames is None else frames
        draw_dataset(out, scenes=scenes, frames=frames, people=people, seed=seed)
    click.echo(f"drawn: {out}")
