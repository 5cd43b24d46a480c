"""The `stage2` command: parses, calls one function, prints, and turns errors into one sentence each."""

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from configs.options import (
    as_json_option,
    compare_options,
    evaluate_options,
    extract_options,
    finetune_options,
    predict_options,
    repair_options,
    run_config,
    run_weights_option,
    synth_options,
    train_options,
)
from configs.presets import PRESETS
from configs.process import end_at_once, exit_code
from configs.ranks import rank

SKIPPED, FAULTY = 3, 4  # exit codes: finished with skipped items; a store is not what it should be


def _underscored(token: str) -> str:
    """Options may be typed with hyphens or underscores."""
    return token.replace("-", "_")


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "max_content_width": 110,
        "token_normalize_func": _underscored,
    }
)
@click.version_option(package_name="stage2")
def stage2() -> None:
    """What do pairs of people do together? Extract visual features once, then train on them in seconds."""


@stage2.command()
@extract_options
def extract(as_json: bool, **settings: Any) -> int:
    """Run the backbone once over all person crops into a feature store; run again, it resumes."""
    from classify.report.log import console
    from configs.extraction_config import ExtractionConfig

    config = ExtractionConfig(**settings)
    from extract.job import extract as run
    from store.describe import store_text

    with console(sys.stderr if as_json else sys.stdout):
        found = run(config).to_dict()
    _show(found, as_json, store_text)
    return SKIPPED if found["skipped"] else 0


@stage2.command()
@train_options
@click.pass_context
def train(context: click.Context, /, **_: Any) -> None:
    """Train: with --freeze_backbone the head on cached features, else end to end."""
    _train(context, {})


@stage2.command()
@finetune_options
@train_options
@click.pass_context
def finetune(context: click.Context, /, start: str, **_: Any) -> None:
    """Train backbone and head end to end, from a head-only run's end where --from is given."""
    from classify.pipeline import start_settings

    _train(context, start_settings(Path(start)) if start else {})


@stage2.command()
@click.argument("preset", required=False, type=click.Choice([preset.name for preset in PRESETS]))
@train_options
@click.pass_context
def run(context: click.Context, /, preset: str | None, **_: Any) -> None:
    """Train with a preset of the guide; without one, choose from a list. Options win over the preset's."""
    if preset is None:
        for number, choice in enumerate(PRESETS, 1):
            click.echo(f"  {number}  {choice.name:<16} {choice.purpose}")
        preset = PRESETS[click.prompt("Preset", type=click.IntRange(1, len(PRESETS)), default=1) - 1].name
    _train(context, next(choice.settings for choice in PRESETS if choice.name == preset))


def _train(context: click.Context, settings: dict[str, Any]) -> None:
    given, config = context.params, run_config(context, settings)
    from classify.pipeline import train as start
    from classify.report.log import console
    from configs.train_options import TrainOptions

    resume = given["resume"] == "auto"
    beside = TrainOptions(
        given["store"], given["max_skipped"], given["seeds"], given["overwrite"], resume, given.get("start", "")
    )
    with console(sys.stderr if given["as_json"] else sys.stdout):
        finished = start(config, beside)
    if rank() > 0:
        return
    found = finished.results | {"run": str(finished.folder)}
    _show(found, given["as_json"], lambda values: f"Run folder: {values['run']}")


_run_folder = click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))


@stage2.command()
@_run_folder
@evaluate_options
def evaluate(run_folder: Path, store: Path | None, data_path: Path | None, as_json: bool, **given: Any) -> None:
    """Metrics of a finished run on a split."""
    if (store is None) == (data_path is None):
        raise click.UsageError("give either --store or --data_path")
    from classify.evaluate.metrics import metrics_text
    from classify.inference.finished_run import evaluate_on_images, evaluate_on_store

    if store is not None:
        found = evaluate_on_store(run_folder, store, given["split"], given["device"])
    else:
        assert data_path is not None
        found = evaluate_on_images(run_folder, data_path, given["split"], given["device"], given["weights"])
    _show(found, as_json, metrics_text)


@stage2.command()
@_run_folder
@predict_options
def predict(run_folder: Path, data_path: Path, out: Path, pairs: str, as_json: bool, **given: Any) -> None:
    """Say what the pairs of new frames do, as JRDB-format JSON and as pictures."""
    from classify.inference.predict import PredictOptions
    from classify.inference.predict import predict as answer
    from classify.report.log import console

    with console(sys.stderr):
        counts = answer(run_folder, data_path, out, PredictOptions(pairing=pairs, **given))
    text = "{pairs:,} pairs of {persons:,} people in {frames:,} frames -> {out}"
    _show(counts | {"out": str(out)}, as_json, lambda values: text.format(**values))


@stage2.command()
@_run_folder
@click.option("--out", type=click.Path(path_type=Path), help="HTML file to write.  [default: RUN/report.html]")
def report(run_folder: Path, out: Path | None) -> None:
    """Write the page of a run."""
    from classify.report.html import write_report

    click.echo(write_report(run_folder, out or run_folder / "report.html"))


@stage2.command()
@_run_folder
@click.option("--format", "kind", type=click.Choice(("onnx", "torchscript", "safetensors")), required=True)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to write.")
@run_weights_option
@as_json_option
def export(run_folder: Path, kind: str, out: Path, weights: str, as_json: bool) -> None:
    """Write the whole classifier, crops and boxes in, probabilities out, once it answers as the live model does."""
    from classify.export.export import export as write

    text = "{out} ({bytes:,} bytes): within {difference:.1g} of the live model, {tolerance:g} allowed"
    _show(write(run_folder, out, kind, weights), as_json, lambda values: text.format(**values))


@stage2.command()
@compare_options
def compare(
    out: Path, backbones: str, modes: str, max_skipped: float, config_file: Path | None, as_json: bool, **given: Any
) -> None:
    """Train backbones, cached and end to end, on the same split, and print the guide's table."""
    from classify.experiments.compare import compare as run
    from classify.experiments.compare import compare_table
    from classify.report.log import console
    from configs.options import read_toml

    settings = read_toml(config_file) if config_file is not None else {}
    settings |= {name: value for name, value in given.items() if value is not None}
    with console(sys.stderr):
        found = run(out, backbones.split(","), modes.split(","), settings, max_skipped)
    _show(found, as_json, compare_table)


@stage2.command()
@click.option("--out", type=click.Path(path_type=Path), default="stage2-demo", help="Folder for everything.")
@click.option("--seed", default=0)
def demo(out: Path, seed: int) -> None:
    """The main job on built-in data, offline: draw, extract, train, evaluate, report."""
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
@synth_options
def synth(out: Path, scenes: int | None, frames: int | None, people: int, seed: int, labels: Path | None) -> None:
    """Draw a JRDB-format data set: panoramas of people with annotations."""
    from extract.synth.dataset import draw_dataset, draw_for_labels

    if labels is not None:
        draw_for_labels(labels, out, scenes=scenes, frames=frames, seed=seed)
    else:
        draw_dataset(
            out,
            scenes=25 if scenes is None else scenes,
            frames=10 if frames is None else frames,
            people=people,
            seed=seed,
        )
    click.echo(f"drawn: {out}")


@stage2.group("store")
def store_group() -> None:
    """Look into a feature store, check it, mend it."""


@store_group.command()
@click.argument("path", metavar="STORE", type=click.Path(path_type=Path))
@as_json_option
def info(path: Path, as_json: bool) -> None:
    """What a store holds; reads no features."""
    from store.crops import info_with_crops
    from store.describe import store_text

    _show(info_with_crops(path), as_json, store_text)


@store_group.command()
@click.argument("path", metavar="STORE", type=click.Path(path_type=Path))
@as_json_option
def verify(path: Path, as_json: bool) -> int:
    """Check every byte of a store against its checksums, plan and recipe; exit code 4 where something is wrong."""
    from store.describe import verify_text
    from store.verify import verify as check

    found = check(path).to_dict()
    _show(found, as_json, verify_text)
    return 0 if found["sound"] else FAULTY


@store_group.command()
@click.argument("path", metavar="STORE", type=click.Path(path_type=Path))
@repair_options
def repair(path: Path, data_path: str, weights: str, as_json: bool, **machine: Any) -> None:
    """Compute again exactly what is damaged or missing, from the data that the store was made from."""
    from classify.report.log import console
    from extract.repair import ComputeOptions
    from extract.repair import repair as mend
    from store.describe import repair_text

    with console(sys.stderr if as_json else sys.stdout):
        found = mend(path, Path(data_path), weights, ComputeOptions(**machine)).to_dict()
    _show(found, as_json, repair_text)


@store_group.command()
@click.argument("path", metavar="STORE", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT.h5", type=click.Path(path_type=Path))
def pack(path: Path, out: Path) -> None:
    """Write a store into one HDF5 file, for copying and reading; every command takes it in the store's place."""
    from store.pack import pack_store

    click.echo(f"packed: {out} ({pack_store(path, out) / 1e6:,.1f} MB)")


def _show(values: dict[str, Any], as_json: bool, text: Callable[[dict[str, Any]], str]) -> None:
    click.echo(json.dumps(values, indent=1) if as_json else text(values))


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and ends with the documented exit code."""
    sys.exit(exit_code(stage2, arguments))


def process(arguments: Sequence[str] | None = None) -> NoReturn:
    """`main` in a process of its own."""
    end_at_once(partial(main, arguments))


if __name__ == "__main__":
    process()
