"""The `stage2` command: parses, calls one function, prints, and turns errors into one sentence each."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from configs.errors import Stage2Error
from configs.extraction_config import DTYPES, ON_ERROR, PERSONS, PRECISIONS
from configs.resnet_stage2_config import BACKBONES, DEVICES

SKIPPED = 3  # exit code: finished, with skipped items
INTERRUPTED = 130

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


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


def _options(*options: Decorator) -> Decorator:
    """Several options as one decorator, in the order in which help shows them."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


_as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else, on stdout.")
_device = click.option("--device", type=click.Choice(DEVICES), default="auto", help="Where to compute.")
_data_path = click.option("--data_path", default="../dataset", help="JRDB-format folder with images/ and labels/.")
_max_skipped = click.option(
    "--max_skipped",
    type=float,
    default=0.01,
    help="Stop when a larger share of frames, people or pairs is unusable.",
)
_num_workers = click.option("--num_workers", default=4, help="Threads that read, decode and crop ahead of the model.")


@stage2.command()
@_options(
    _data_path,
    click.option("--store", default="", show_default=False, help="Store to write.  [default: stores/<fingerprint>]"),
    click.option("--backbone", type=click.Choice(BACKBONES), default="resnet18"),
    click.option("--weights", default="imagenet", help="imagenet, random, or a checkpoint file."),
    click.option("--crop_size", default=112, help="Edge of a person crop in pixels."),
    click.option("--frame_interval", default=1, help="Take every n-th annotated frame of a scene."),
    click.option("--persons", type=click.Choice(PERSONS), default="all", help="All people, or those in pairs alone."),
    click.option("--views", type=click.IntRange(1, 2), default=1, help="2: the mirrored crops too."),
    click.option("--dtype", type=click.Choice(DTYPES), default="float16", help="Number type in the store."),
    click.option("--precision", type=click.Choice(PRECISIONS), default="float32", help="Of the forward pass (GPU)."),
    click.option("--batch_size", default=64, help="Crops a batch."),
    _num_workers,
    _device,
    click.option("--on_error", type=click.Choice(ON_ERROR), default="skip", help="What an unusable image does."),
    _max_skipped,
    click.option("--update", is_flag=True, help="Accept changed data and compute only what changed."),
    _as_json,
)
def extract(as_json: bool, **settings: Any) -> int:
    """Run the backbone once over all person crops into a feature store; run again, it resumes."""
    from classify.logs import console
    from configs.extraction_config import ExtractionConfig

    config = ExtractionConfig(**settings)
    from extract.job import extract as run

    with console(sys.stderr if as_json else sys.stdout):
        found = run(config).to_dict()
    _show(found, as_json, _store_text)
    return SKIPPED if found["skipped"] else 0


@stage2.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--scenes", type=int, help="How many scenes.  [default: 12; with --labels: all]")
@click.option("--frames", type=int, help="Frames a scene.  [default: 12; with --labels: all]")
@click.option("--people", default=12, help="People a frame, about.")
@click.option("--seed", default=0)
@click.option("--labels", type=click.Path(path_type=Path), help="Draw panoramas that fit these annotations.")
def synth(out: Path, scenes: int | None, frames: int | None, people: int, seed: int, labels: Path | None) -> None:
    """Draw a JRDB-format data set: panoramas of people with annotations."""
    from extract.synth.dataset import draw_dataset, draw_for_labels

    if labels is not None:
        draw_for_labels(labels, out, scenes=scenes, frames=frames, seed=seed)
    else:
        draw_dataset(out, scenes=scenes or 12, frames=frames or 12, people=people, seed=seed)
    click.echo(f"drawn: {out}")


@stage2.group("store")
def store_group() -> None:
    """Look into a feature store, check it, mend it."""


@store_group.command()
@click.argument("path", metavar="STORE", type=click.Path(path_type=Path))
@_as_json
def info(path: Path, as_json: bool) -> None:
    """What a store holds; reads no features."""
    from store.reader import store_info

    _show(store_info(path), as_json, _store_text)


def _show(values: dict[str, Any], as_json: bool, text: Callable[[dict[str, Any]], str]) -> None:
    click.echo(json.dumps(values, indent=1) if as_json else text(values))


def _store_text(info: dict[str, Any]) -> str:
    """A store's description for people."""
    recipe, planned = info["recipe"], info["planned"]
    state = "complete" if info["complete"] else "unfinished: run the same extraction again to go on"
    lines = [
        f"{info['path']} ({state})",
        f"  fingerprint  {info['fingerprint']}",
        f"  recipe       {recipe['backbone']} ({info['weights']}, {recipe['weights_sha256'][:12]}), "
        f"crops of {recipe['crop_size']} px, {info['visual_dim']} values as {info['dtype']}, {recipe['views']} view(s)",
        f"  data         {info['scenes']} scenes, every {info['frame_interval']}. frame, "
        f"{info['selected_persons']} persons",
        *(f"  {kind:<12} {info[kind]:,} of {planned[kind]:,} stored" for kind in ("frames", "persons", "pairs")),
        f"  size         {info['bytes'] / 1e6:,.1f} MB in {info['units']} shards; zero values {info['zero_share']:.2%}",
    ]
    lines += [f"  skipped      {reason}: {count}" for reason, count in info["skipped"].items()]
    if "frames_decoded" in info:
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in info["seconds"].items())
        lines += [
            f"  this run     {info['frames_decoded']:,} frames decoded, {info['crops_forwarded']:,} crops forwarded, "
            f"{info['units_reused']} units reused",
            f"  seconds      {stages}",
        ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and ends the process with the documented exit code."""
    try:
        code = stage2.main(args=arguments, prog_name="stage2", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; the same command goes on where this one stopped", err=True)
        code = INTERRUPTED
    except Stage2Error as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    sys.exit(code or 0)


if __name__ == "__main__":
    main()
