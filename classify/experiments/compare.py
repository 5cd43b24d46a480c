"""Compares backbones, cached and end-to-end, on the same split: the training guide's table for the user's data."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from classify.experiments.finished_row import load_finished
from classify.experiments.isolated import train_in_subprocess
from classify.experiments.stores import choose_store
from classify.model.checkpoint import CACHED, END_TO_END
from classify.replacement import find_run
from classify.report.results import write_json
from classify.run_folder import RunFolder
from configs.errors import ConfigError, MismatchError
from configs.presets import preset
from configs.printable import markdown_text, printable
from configs.process.failures import how_to_continue
from configs.resnet_stage2_config import BACKBONES, ResNetStage2Config
from configs.train_options import TrainOptions
from extract.annotations.jrdb import IMAGES, LABELS, scene_digests
from extract.backbones.hog import HOG
from extract.backbones.weights import load_backbone
from extract.images.identity import ImageIdentities
from store.files import publish
from store.format.recipe import digest
from store.outputs import claim_marked_folder
from store.ownership import COMPARISON, COMPARISON_MARKER, own_folder
from store.reader import store_info

_log = logging.getLogger("stage2")
_KEPT = "; finished runs and extracted units in --out are kept: run the same command again to continue"
MODES = (CACHED, END_TO_END)
RESULT, TABLE = "compare.json", "compare.md"  # file names

Train = Callable[[ResNetStage2Config, TrainOptions], dict[str, Any]]  # see `train_in_subprocess`


@dataclass(frozen=True)
class PlannedRun:
    """A row of the table before training."""

    backbone: str
    mode: str
    config: ResNetStage2Config

    @property
    def name(self) -> str:
        """The name of the run folder under `out`."""
        return Path(self.config.checkpoint_dir).name


def compare(
    out: Path,
    backbones: Sequence[str],
    modes: Sequence[str],
    settings: dict[str, Any],
    max_skipped: float = 0.01,
    train: Train = train_in_subprocess,
) -> dict[str, Any]:
    """Trains each backbone in each mode, one after the other, and writes compare.json and compare.md to `out`.

    Each run uses the training guide's preset (resnet18_frozen in cached mode, else the backbone's own). Runs and
    stores are in `out`; a finished store in stores/ that fits is used. The same command reuses finished runs if their
    data, weights and settings are unchanged, and otherwise updates the store and trains again.

    Args:
        backbones: of BACKBONES; "hog" has no trainable parameters and is only compared in cached mode.
        settings: fields of ResNetStage2Config for all runs; they override the presets.
        train: trains one run.

    Returns:
        The content of compare.json: `rows`, `baselines`, `classes`, `pairs_per_class`, and `damaged`: how many frames,
        persons and pairs a run skipped because of damage, at most.

    Raises:
        ConfigError: a name is unknown, there is nothing to compare, or `out` has files but no comparison.
        DataError: there is no data. MismatchError: the runs used different pairs.
        LockedError: another comparison is writing to `out`. Stage2Error: any error of training.
    """
    planned = plan_runs(out, backbones, modes, settings)
    data_path, marker = Path(planned[0].config.data_path), out / COMPARISON_MARKER
    claim_marked_folder(marker, COMPARISON, "--out", inputs=(data_path / IMAGES, data_path / LABELS))
    known = ImageIdentities(out.glob("*.store"))
    data = {name: asdict(scene) for name, scene in scene_digests(data_path, known).items()}
    with own_folder(marker, COMPARISON):
        return _compare(planned, data, out, max_skipped, train)


def _compare(
    planned: list[PlannedRun], data: dict[str, Any], out: Path, max_skipped: float, train: Train
) -> dict[str, Any]:
    runs: list[dict[str, Any]] = []
    for number, run in enumerate(planned, 1):
        _log.info("Comparing %s (%s of %s)", run.name, number, len(planned))
        key = _fingerprint(run.config, data)
        runs.append(
            load_finished(find_run(Path(run.config.checkpoint_dir)).comparison_row, key, run.backbone, run.mode)
            or _train_row(run, key, out, max_skipped, train)
        )
        _check_same_pairs(runs[0], runs[-1])
    comparison = {
        "rows": [run["row"] for run in runs],
        "baselines": {name: runs[0]["results"]["baselines"][name] for name in ("majority", "spatial_only")},
        "classes": runs[0]["results"]["classes"],
        "pairs_per_class": runs[0]["results"]["pairs_per_class"],
        "damaged": max(run["results"].get("data", {"damaged": 0})["damaged"] for run in runs),
    }
    write_json(out / RESULT, comparison)
    publish(out / TABLE, compare_markdown(comparison).encode())
    return comparison


def plan_runs(out: Path, backbones: Sequence[str], modes: Sequence[str], settings: dict[str, Any]) -> list[PlannedRun]:
    """All runs of a comparison, with validated settings. Raises ConfigError."""
    for option, names, known in (("backbones", backbones, BACKBONES), ("modes", modes, MODES)):
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise ConfigError(f"--{option} has {(*unknown, '')[0]!r}; choose from {', '.join(known)}, with commas")
    pairs = [(name, mode) for name in dict.fromkeys(backbones) for mode in dict.fromkeys(modes)]
    pairs = [pair for pair in pairs if pair != (HOG, END_TO_END)]
    if not pairs:
        raise ConfigError(f"{HOG} has nothing to train end to end; add {CACHED} to --modes, or a ResNet to --backbones")
    return [PlannedRun(name, mode, _config(out, name, mode, settings)) for name, mode in pairs]


def _config(out: Path, backbone: str, mode: str, settings: dict[str, Any]) -> ResNetStage2Config:
    fixed = {
        "backbone_name": backbone,
        "freeze_backbone": mode == CACHED,
        "checkpoint_dir": str(out / f"{backbone}_{mode}"),
    }
    if backbone == HOG:
        fixed["weights"] = ResNetStage2Config.weights  # the given weights are for the ResNets
    return ResNetStage2Config.from_dict(
        preset("resnet18_frozen" if mode == CACHED else backbone).settings | settings | fixed
    )


def _train_row(run: PlannedRun, key: str, out: Path, max_skipped: float, train: Train) -> dict[str, Any]:
    """Trains one run; returns and saves its results, its row of the table and its key."""
    config, store, options = run.config, Path(), TrainOptions(max_skipped=max_skipped, overwrite=True)
    if run.mode == CACHED:
        options = choose_store(config, options, out)
        store = Path(options.store)
    resumed = run.mode == CACHED and store.exists()
    with how_to_continue(lambda: _KEPT, override=True):
        results = train(config, options)
    row = {
        "model": run.backbone,
        "mode": run.mode,
        "val_accuracy": results["best_val_accuracy"],
        "val_mpca": results["best_val_mpca"],
        "test_accuracy": results["test_accuracy"],
        "test_mpca": results["test_mpca"],
        "epochs": results["epochs_run"],
        "seconds_train": results["seconds"]["train"],
        "seconds_extract": results["seconds"]["extract"],
        "extract_resumed": resumed,  # then seconds_extract lacks the time of earlier extractions
        "peak_memory": results["peak_memory"],
        "memory": results["memory"],
        "zero_share": store_info(store)["zero_share"] if run.mode == CACHED else None,
        "run": config.checkpoint_dir,
    }
    finished = {"key": key, "row": row, "results": results}
    write_json(RunFolder(Path(config.checkpoint_dir)).comparison_row, finished)
    return finished


def _fingerprint(config: ResNetStage2Config, data: dict[str, Any]) -> str:
    weights = load_backbone(config.backbone_name, config.weights).sha256
    return digest({"config": config.to_dict(), "data": data, "weights": weights})


def _check_same_pairs(first: dict[str, Any], run: dict[str, Any]) -> None:
    """Raises MismatchError unless both runs have the same number of pairs of each class in each split."""
    for split, counts in first["results"]["pairs_per_class"].items():
        actual = run["results"]["pairs_per_class"][split]
        if actual != counts:
            raise MismatchError(
                f"{run['row']['run']} has {actual} pairs of the classes in {split}, {first['row']['run']} {counts}: "
                f"they cannot be compared; repair the skipped images, and give another --out"
            )


_HEADER = (
    "model",
    "validation accuracy",
    "MPCA",
    "test accuracy",
    "test MPCA",
    "training time",
    "extraction",
    "memory",
    "zero values",
)
_EMPTY = "-"


def compare_markdown(comparison: dict[str, Any]) -> str:
    """The content of compare.json as a Markdown page: the table, and the meaning of its columns."""
    classes = [markdown_text(name) for name in comparison["classes"]]
    splits = comparison["pairs_per_class"]
    pairs = [
        f"- {name}: {sum(counts):,} pairs ({', '.join(f'{c} {n:,}' for c, n in zip(classes, counts, strict=True))})"
        for name, counts in splits.items()
    ]
    notes = [
        "All runs trained, validated and tested on the same pairs:",
        "",
        *pairs,
        "",
        "MPCA is the mean per-class accuracy. The validation metrics are those of the epoch with the best MPCA, whose "
        "model was tested. Frozen models train the head on features that were extracted once. Memory is the peak of "
        + _memory_text(comparison["rows"])
        + ". Zero values is the fraction of zeros among the extracted features.",
    ]
    if any(row["extract_resumed"] for row in comparison["rows"]):
        notes.append("A time with ≥ does not include what an earlier, interrupted comparison extracted.")
    runs = [f"- {_model(row)}: `{printable(row['run'])}`, {row['epochs']} epochs" for row in comparison["rows"]]
    return "\n".join(["# Comparison", "", compare_table(comparison), "", *notes, "", *runs, ""])


def compare_table(comparison: dict[str, Any]) -> str:
    """The table in Markdown, with padded columns."""
    rows = [_HEADER, *(_cells(row) for row in comparison["rows"])]
    for name, metrics in comparison["baselines"].items():
        test = (f"{metrics['accuracy']:.1%}", f"{metrics['mpca']:.4f}")
        rows.append((name, _EMPTY, _EMPTY, *test, *[_EMPTY] * 4))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "| " + " | ".join("-" * width for width in widths) + " |", *lines[1:]])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    extraction, zeros = _EMPTY, _EMPTY
    if row["mode"] == CACHED:
        extraction = ("≥ " if row["extract_resumed"] else "") + _duration(row["seconds_extract"])
        zeros = f"{row['zero_share']:.1%}"
    return (
        _model(row),
        f"{row['val_accuracy']:.1%}",
        f"{row['val_mpca']:.4f}",
        f"{row['test_accuracy']:.1%}",
        f"{row['test_mpca']:.4f}",
        _duration(row["seconds_train"]),
        extraction,
        f"{row['peak_memory'] / 2**30:.2f} GiB",
        zeros,
    )


def _model(row: dict[str, Any]) -> str:
    return f"{row['model']}, frozen" if row["mode"] == CACHED else str(row["model"])


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _memory_text(rows: list[dict[str, Any]]) -> str:
    """What the column measures; all runs use the same device."""
    if rows[0]["memory"] == "GPU":
        return "the memory that PyTorch allocated on the GPU"
    return "the whole process, including Python, libraries, extraction and baselines"
