"""The `stage2` command: parses the command line, calls one function, prints, and turns errors into exit codes.

Each command imports what it needs when it runs, so that `--help` answers at once. Exit codes: `configs/errors.py`.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from configs import options, presets
from configs.errors import EXIT_FAULTY, EXIT_SKIPPED
from configs.extraction_config import ExtractionConfig
from configs.printable import printable_lines
from configs.process.failures import Failure, failure_of, sigterm_interrupts
from configs.process.streams import check_address_space, run_and_exit
from configs.ranks import rank, world_size
from configs.settings import from_options
from configs.train_options import TrainOptions


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "max_content_width": 110,
        "token_normalize_func": lambda token: token.replace("-", "_"),  # accept hyphens in options too
    }
)
@click.version_option(package_name="stage2")
def stage2() -> None:
    """Recognise what pairs of people do together: extract visual features once, then train on them in seconds."""


@stage2.command()
@options.extract
def extract(as_json: bool, **settings: Any) -> int:
    """Extract the features of all people into a store; run again to resume."""
    config = ExtractionConfig(**settings)
    from classify.report.log import console
    from extract.job import extract as run
    from store.describe import store_text

    with console(sys.stderr if as_json else sys.stdout):
        summary = run(config).to_dict()
    _print(summary, as_json, store_text)
    return EXIT_SKIPPED if summary["damaged"] else 0


@stage2.command()
@options.train
@click.pass_context
def train(context: click.Context, /, **_: Any) -> int:
    """Train end to end, or with --freeze_backbone only the head, on cached features."""
    return _train(context, {})


@stage2.command()
@options.finetune
@click.pass_context
def finetune(context: click.Context, /, start: str, **_: Any) -> int:
    """Train backbone and head end to end; --from starts from a finished run."""
    from classify.pipeline import start_settings

    return _train(context, start_settings(Path(start)) if start else {})


@stage2.command()
@options.preset
@options.train
@click.pass_context
def run(context: click.Context, /, preset: str | None, **_: Any) -> int:
    """Train with a preset, or choose one from a list. Options override the preset's settings."""
    return _train(context, presets.preset(preset or options.choose_preset(context.params["as_json"])).settings)


def _train(context: click.Context, settings: dict[str, Any]) -> int:
    config, training = options.run_config(context, settings), from_options(TrainOptions, context.params)
    from classify.pipeline import train as start
    from classify.report.log import console
    from classify.report.results import finished_text

    with console(sys.stderr if context.params["as_json"] else sys.stdout):
        finished = start(config, training)
    results = finished.results | {"run": str(finished.folder)}
    if rank() == 0:
        _print(results, context.params["as_json"], finished_text)
    # torchrun takes any other exit code than 0 for a crash and starts the training again
    return EXIT_SKIPPED if results["data"]["damaged"] and world_size() == 1 else 0


@stage2.command()
@options.run_folder
@options.evaluate
def evaluate(run_folder: Path, store: Path | None, data_path: Path | None, as_json: bool, **given: Any) -> int:
    """Print the metrics of a finished run on a split of a store (--store) or of images (--data_path)."""
    if (store is None) == (data_path is None):
        raise click.UsageError("give either --store or --data_path")
    from classify.evaluate.metrics import metrics_text
    from classify.inference.finished_run import evaluate_on_images, evaluate_on_store
    from classify.report.log import console

    with console(sys.stderr):
        if store is not None:
            metrics = evaluate_on_store(run_folder, store, given["split"], given["device"], given["max_skipped"])
        else:
            assert data_path is not None
            metrics = evaluate_on_images(run_folder, data_path, **given)
    _print(metrics, as_json, metrics_text)
    return EXIT_SKIPPED if metrics["data"]["damaged"] else 0


@stage2.command()
@options.run_folder
@options.predict
def predict(run_folder: Path, data_path: Path, out: Path, as_json: bool, **given: Any) -> int:
    """Predict what the pairs of people in new frames do, as JRDB-format JSON and as images."""
    from classify.inference.predict import PredictOptions, predict_text
    from classify.inference.predict import predict as run
    from classify.report.log import console

    with console(sys.stderr):
        result = run(run_folder, data_path, out, PredictOptions(**given))
    _print(result, as_json, predict_text)
    return EXIT_SKIPPED if result["data"]["damaged"] else 0


@stage2.command()
@options.run_folder
@click.option("--out", type=click.Path(path_type=Path), help="HTML file to write.  [default: RUN/report.html]")
@options.overwrite
def report(run_folder: Path, out: Path | None, overwrite: bool) -> None:
    """Write a run's HTML report."""
    from classify.report.html import write_report
    from classify.run_folder import RunFolder

    click.echo(write_report(run_folder, out or RunFolder(run_folder).report, overwrite=overwrite))


@stage2.command()
@options.run_folder
@options.export
def export(run_folder: Path, kind: str, out: Path, weights: str, overwrite: bool, as_json: bool) -> None:
    """Export the classifier (crops and boxes in, probabilities out) after comparing it with the live model."""
    from classify.export.export import export as run
    from classify.report.log import console

    with console(sys.stderr):
        summary = run(run_folder, out, kind, weights, overwrite=overwrite)
    text = "{out} ({bytes:,} bytes): differs from the live model by {difference:.1g}; {tolerance:g} is allowed"
    _print(summary, as_json, text.format_map)


@stage2.command()
@options.compare
def compare(
    out: Path, backbones: str, modes: str, max_skipped: float, config_file: Path | None, as_json: bool, **given: Any
) -> int:
    """Train several backbones, cached and end to end, on the same split, and print a table."""
    from classify.experiments.compare import compare as run
    from classify.experiments.compare import compare_table
    from classify.report.log import console

    settings = options.read_toml(config_file) | {name: value for name, value in given.items() if value is not None}
    with console(sys.stderr):
        comparison = run(out, backbones.split(","), modes.split(","), settings, max_skipped)
    _print(comparison, as_json, compare_table)
    return EXIT_SKIPPED if comparison["damaged"] else 0


@stage2.command()
@options.demo
def demo(out: Path, seed: int) -> None:
    """Draw a small dataset, extract, train, evaluate and write a report; works offline."""
    from classify.demo import run_demo
    from classify.report.log import console

    with console(sys.stdout):
        made = run_demo(out, seed)
    click.echo(
        f"\nEverything is in {out}:\n  data      {made.data}\n  features  {made.store}\n  run       {made.run.folder}"
        f"\n  report    {made.report}"
    )


@stage2.command()
@click.argument("out", type=click.Path(path_type=Path))
@options.synth
def synth(out: Path, scenes: int | None, frames: int | None, people: int, seed: int, labels: Path | None) -> None:
    """Draw a JRDB-format dataset: panoramas of people, with annotations."""
    from extract.synth.dataset import draw_dataset, draw_for_labels

    if labels is not None:
        draw_for_labels(labels, out, scenes=scenes, frames=frames, seed=seed)
    else:
        scenes, frames = 25 if scenes is None else scenes, 10 if frames is None else frames
        draw_dataset(out, scenes=scenes, frames=frames, people=people, seed=seed)
    click.echo(f"drawn: {out}")


@stage2.group("store")
def store_group() -> None:
    """Inspect, check, repair or pack a feature store."""


@store_group.command()
@options.store_path
@options.as_json
def info(path: Path, as_json: bool) -> None:
    """Print a store's recipe, counts and size, without reading features."""
    from store.crops import info_with_crops
    from store.describe import store_text

    _print(info_with_crops(path), as_json, store_text)


@store_group.command()
@options.store_path
@options.verify
def verify(path: Path, data_path: Path | None, as_json: bool) -> int:
    """Check every byte of a store, and with --data_path its data; exit code 4 if something is wrong."""
    from extract.verify_data import verify as run
    from store.describe import verify_text

    result = run(path, data_path).to_dict()
    _print(result, as_json, verify_text)
    return 0 if result["sound"] else EXIT_FAULTY


@store_group.command()
@options.store_path
@options.repair
def repair(path: Path, data_path: str, weights: str, as_json: bool, **compute: Any) -> None:
    """Recompute the damaged or missing shards of a store from its original data."""
    from classify.report.log import console
    from extract.repair import ComputeOptions
    from extract.repair import repair as run
    from store.describe import repair_text

    with console(sys.stderr if as_json else sys.stdout):
        result = run(path, Path(data_path), weights, ComputeOptions(**compute)).to_dict()
    _print(result, as_json, repair_text)


@store_group.command()
@options.store_path
@click.argument("out", metavar="OUT.h5", type=click.Path(path_type=Path))
@options.overwrite
def pack(path: Path, out: Path, overwrite: bool) -> None:
    """Pack a store into one HDF5 file, which every command accepts as a store."""
    from store.pack import pack_store

    click.echo(f"packed: {out} ({pack_store(path, out, overwrite) / 1e6:,.1f} MB)")


def _print(values: dict[str, Any], as_json: bool, text: Callable[[dict[str, Any]], str]) -> None:
    click.echo(json.dumps(values, indent=1) if as_json else printable_lines(text(values)))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits. A failure is printed as one sentence; with --json also as an object."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        check_address_space(arguments)
        with sigterm_interrupts():
            code: int | None = stage2.main(arguments, prog_name="stage2", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = _fail(Failure(error.format_message(), error.exit_code), arguments)
    except (Exception, KeyboardInterrupt) as error:
        cause = (error.__cause__ or KeyboardInterrupt()) if isinstance(error, click.Abort) else error
        failure = failure_of(cause, arguments)
        click.echo(failure.line, err=True)
        code = _fail(failure, arguments)
    sys.exit(code or 0)


def _fail(failure: Failure, arguments: Sequence[str]) -> int:
    if "--json" in arguments and os.environ.get("RANK", "0") == "0":
        click.echo(json.dumps({"error": failure.sentence, "exit_code": failure.exit_code}, indent=1))
    return failure.exit_code


def process(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script: `main`, ended by `run_and_exit`."""
    run_and_exit(lambda: main(arguments))


if __name__ == "__main__":
    process()
