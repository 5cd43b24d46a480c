"""The commands that use a finished run: `stage2 evaluate`, `predict`, `report` and `export`."""

import sys
from pathlib import Path
from typing import Any

import click

from configs import options
from configs.errors import EXIT_SKIPPED
from configs.extraction_config import ExtractionConfig
from configs.process.console import console
from configs.resnet_stage2_config import ResNetStage2Config
from configs.splits import SPLIT_NAMES
from configs.train_options import TrainOptions

run_folder = click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
run_weights = click.option(
    "--weights", default="", show_default=False, help="The weights file of the run's backbone, if it was moved."
)
run_panorama = options.option(ResNetStage2Config, "panorama", default=None, show_default="the run's")


@click.command()
@run_folder
@options.path_option("store", "Evaluate on this feature store.")
@options.path_option("data_path", "Evaluate on the images of this JRDB-format folder.")
@click.option("--split", type=click.Choice(SPLIT_NAMES), default="test", help="Split to evaluate on.")
@options.option(TrainOptions, "max_skipped")
@run_panorama
@run_weights
@options.device
@options.as_json
def evaluate(run_folder: Path, store: Path | None, data_path: Path | None, as_json: bool, **given: Any) -> int:
    """Print the metrics of a finished run on a split of a store (--store) or of images (--data_path)."""
    if (store is None) == (data_path is None):
        raise click.UsageError("give either --store or --data_path")
    from classify.evaluate.metrics import metrics_text
    from classify.inference.finished_run import evaluate_on_images, evaluate_on_store

    with console(sys.stderr):
        if store is not None:
            metrics = evaluate_on_store(run_folder, store, given["split"], given["device"], given["max_skipped"])
        else:
            assert data_path is not None
            metrics = evaluate_on_images(run_folder, data_path, **given)
    options.print_result(metrics, as_json, metrics_text)
    return EXIT_SKIPPED if metrics["data"]["damaged"] else 0


@click.command()
@run_folder
@options.path_option("data_path", "JRDB-format folder with images/ and labels/.", required=True)
@options.path_option("out", "JSON file to write.", required=True)
@click.option(
    "--pairs",
    "pairing",
    type=click.Choice(("labelled", "near", "all")),
    show_default="labelled; near if no pair is labelled",
    help="Classify the annotated pairs, pairs of people near each other, or all pairs.",
)
@options.path_option("draw", "Folder for images with the predictions drawn in, in a folder for each scene.")
@options.option(ExtractionConfig, "frame_interval")
@click.option("--scene", "scenes", multiple=True, help="Only this scene; may be repeated.")
@options.option(ExtractionConfig, "max_skipped")
@run_panorama
@options.overwrite
@run_weights
@options.device
@options.as_json
def predict(run_folder: Path, data_path: Path, out: Path, as_json: bool, **given: Any) -> int:
    """Predict what the pairs of people in new frames do, as JRDB-format JSON and as images."""
    from classify.inference.predict import PredictOptions, predict_text
    from classify.inference.predict import predict as run

    with console(sys.stderr):
        result = run(run_folder, data_path, out, PredictOptions(**given))
    options.print_result(result, as_json, predict_text)
    return EXIT_SKIPPED if result["data"]["damaged"] else 0


@click.command()
@run_folder
@click.option("--out", type=click.Path(path_type=Path), help="HTML file to write.  [default: RUN/report.html]")
@options.overwrite
def report(run_folder: Path, out: Path | None, overwrite: bool) -> None:
    """Write a run's HTML report."""
    from classify.report.html import write_report
    from classify.run_folder import RunFolder

    click.echo(write_report(run_folder, out or RunFolder(run_folder).report, overwrite=overwrite))


@click.command()
@run_folder
@click.option(
    "--format",
    "kind",
    type=click.Choice(("onnx", "pt2", "safetensors", "torchscript")),
    required=True,
    help="File format; torchscript is deprecated.",
)
@options.path_option("out", "File to write.", required=True)
@options.overwrite
@run_weights
@options.as_json
def export(run_folder: Path, kind: str, out: Path, weights: str, overwrite: bool, as_json: bool) -> None:
    """Export the classifier (crops and boxes in, probabilities out) after comparing it with the live model."""
    from classify.export.export import export as run

    with console(sys.stderr):
        summary = run(run_folder, out, kind, weights, overwrite=overwrite)
    text = "{out} ({bytes:,} bytes): differs from the live model by {difference:.1g}; {tolerance:g} is allowed"
    options.print_result(summary, as_json, text.format_map)
