"""The guide's comparison on one's own data: backbones against each other, cached against end to end, one split."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from classify.experiments.isolated import train_in_child
from classify.model.checkpoint import CACHED, END_TO_END
from classify.report.results import write_json
from configs.errors import ConfigError, MismatchError
from configs.presets import preset
from configs.resnet_stage2_config import BACKBONES, ResNetStage2Config
from configs.train_options import TrainOptions
from extract.annotations.jrdb import scene_digests
from extract.backbones.hog import HOG
from extract.backbones.weights import load_backbone
from store.files import publish, translate_os_errors
from store.format.recipe import digest
from store.reader import store_info

_log = logging.getLogger("stage2")
MODES = (CACHED, END_TO_END)
RESULT, TABLE, ROW = "compare.json", "compare.md", "compare_row.json"


@dataclass(frozen=True)
class _Candidate:
    """One line of the table, still to be trained."""

    backbone: str
    mode: str
    config: ResNetStage2Config

    @property
    def name(self) -> str:
        """Of the run's folder under `out`."""
        return Path(self.config.checkpoint_dir).name


def compare(
    out: Path, backbones: Sequence[str], modes: Sequence[str], settings: dict[str, Any], max_skipped: float = 0.01
) -> dict[str, Any]:
    """Trains each backbone in each mode, one after another, and leaves compare.json and compare.md in `out`.

    Each run follows the guide's preset for it (resnet18_frozen where cached, else the backbone's own), and stands with
    its store under `out`. Run again, the same command takes over the runs that had finished; where data, weights or
    settings are others, they are trained anew.

    Args:
        backbones: of BACKBONES; "hog" has nothing to train end to end and is compared cached alone.
        settings: of ResNetStage2Config, for all runs; they win over the presets.

    Returns:
        the content of compare.json: `rows`, `baselines`, `classes` and `pairs_per_class`.

    Raises:
        ConfigError: a name is unknown, or nothing is left to compare. DataError: there is no data.
        MismatchError: the runs saw other pairs.
        Stage2Error: of any kind that training raises.
    """
    candidates = _candidates(out, backbones, modes, settings)
    data = {name: asdict(scene) for name, scene in scene_digests(Path(candidates[0].config.data_path)).items()}
    with translate_os_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    runs: list[dict[str, Any]] = []
    for number, candidate in enumerate(candidates, 1):
        _log.info("Comparing %s (%s of %s)", candidate.name, number, len(candidates))
        key = _key(candidate.config, data)
        runs.append(_kept(candidate, key) or _trained(candidate, key, out, max_skipped))
        _check_same_pairs(runs[0], runs[-1])
    found = {
        "rows": [run["row"] for run in runs],
        "baselines": {name: runs[0]["results"]["baselines"][name] for name in ("majority", "spatial_only")},
        "classes": runs[0]["results"]["classes"],
        "pairs_per_class": runs[0]["results"]["pairs_per_class"],
    }
    write_json(out / RESULT, found)
    publish(out / TABLE, compare_markdown(found).encode())
    return found


def _candidates(
    out: Path, backbones: Sequence[str], modes: Sequence[str], settings: dict[str, Any]
) -> list[_Candidate]:
    """All of them, their settings checked before the first one is trained."""
    for what, names, known in (("backbones", backbones, BACKBONES), ("modes", modes, MODES)):
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise ConfigError(f"--{what} has {(*unknown, '')[0]!r}; name some of {', '.join(known)}, with commas")
    wanted = [(name, mode) for name in dict.fromkeys(backbones) for mode in dict.fromkeys(modes)]
    wanted = [(name, mode) for name, mode in wanted if (name, mode) != (HOG, END_TO_END)]
    if not wanted:
        raise ConfigError(f"{HOG} has nothing to train end to end; add {CACHED} to --modes, or a ResNet to --backbones")
    return [_Candidate(name, mode, _config(out, name, mode, settings)) for name, mode in wanted]


def _config(out: Path, backbone: str, mode: str, settings: dict[str, Any]) -> ResNetStage2Config:
    own = {
        "backbone_name": backbone,
        "freeze_backbone": mode == CACHED,
        "checkpoint_dir": str(out / f"{backbone}_{mode}"),
    }
    if backbone == HOG:
        own["weights"] = ResNetStage2Config.weights  # those in the settings are the ResNets'
    return ResNetStage2Config.from_dict(
        preset("resnet18_frozen" if mode == CACHED else backbone).settings | settings | own
    )


def _trained(candidate: _Candidate, key: str, out: Path, max_skipped: float) -> dict[str, Any]:
    """Trains in a child; the results, the row made of them, and the key by which the run will be known again."""
    config, store = candidate.config, out / f"{candidate.backbone}.store"
    resumed = candidate.mode == CACHED and store.exists()
    with translate_os_errors(out):
        (Path(config.checkpoint_dir) / ROW).unlink(missing_ok=True)
    features = str(store) if candidate.mode == CACHED else ""
    results = train_in_child(config, TrainOptions(features, max_skipped, overwrite=True))
    row = {
        "model": candidate.backbone,
        "mode": candidate.mode,
        "val_accuracy": results["best_val_accuracy"],
        "val_mpca": results["best_val_mpca"],
        "test_accuracy": results["test_accuracy"],
        "test_mpca": results["test_mpca"],
        "epochs": results["epochs_run"],
        "seconds_train": results["seconds"]["train"],
        "seconds_extract": results["seconds"]["extract"],
        "extract_resumed": resumed,  # what an interrupted comparison had extracted is not in the seconds
        "peak_memory": results["peak_memory"],
        "memory": results["memory"],
        "zero_share": store_info(store)["zero_share"] if candidate.mode == CACHED else None,
        "run": config.checkpoint_dir,
    }
    run = {"key": key, "row": row, "results": results}
    write_json(Path(config.checkpoint_dir) / ROW, run)
    return run


def _kept(candidate: _Candidate, key: str) -> dict[str, Any] | None:
    """The run as an interrupted comparison left it, where it was finished with the same settings, data and weights."""
    path = Path(candidate.config.checkpoint_dir) / ROW
    if not path.exists():
        return None
    run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return run if run["key"] == key else None


def _key(config: ResNetStage2Config, data: dict[str, Any]) -> str:
    weights = load_backbone(config.backbone_name, config.weights).sha256
    return digest({"config": config.to_dict(), "data": data, "weights": weights})


def _check_same_pairs(first: dict[str, Any], run: dict[str, Any]) -> None:
    """Raises MismatchError unless both runs trained, validated and tested on as many pairs of each class."""
    for split, counts in first["results"]["pairs_per_class"].items():
        other = run["results"]["pairs_per_class"][split]
        if other != counts:
            raise MismatchError(
                f"{run['row']['run']} has {other} pairs of the classes in {split}, {first['row']['run']} {counts}: "
                f"they do not compare; mend the images that were skipped, and compare into another --out"
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
_NOTHING = "-"


def compare_markdown(found: dict[str, Any]) -> str:
    """The page of a comparison (compare.json's content): the table, and what its figures mean."""
    classes, splits = found["classes"], found["pairs_per_class"]
    pairs = [
        f"- {name}: {sum(counts):,} pairs ({', '.join(f'{c} {n:,}' for c, n in zip(classes, counts, strict=True))})"
        for name, counts in splits.items()
    ]
    notes = [
        "All runs trained, validated and tested on the same pairs:",
        "",
        *pairs,
        "",
        "MPCA is the mean per-class accuracy; the validation figures are those of the epoch with the best MPCA, whose "
        "model was tested. Frozen models train the head on features that were extracted once. Memory is the peak of "
        + _memory_text(found["rows"])
        + ". Zero values is the share of zeros among the extracted features.",
    ]
    if any(row["extract_resumed"] for row in found["rows"]):
        notes.append("A time with ≥ leaves out what an earlier, interrupted comparison had extracted.")
    runs = [f"- {_model(row)}: `{row['run']}`, {row['epochs']} epochs" for row in found["rows"]]
    return "\n".join(["# Comparison", "", compare_table(found), "", *notes, "", *runs, ""])


def compare_table(found: dict[str, Any]) -> str:
    """The table alone, in Markdown, its columns padded to be read as they are."""
    rows = [_HEADER, *(_cells(row) for row in found["rows"])]
    for name, figures in found["baselines"].items():
        test = (f"{figures['accuracy']:.1%}", f"{figures['mpca']:.4f}")
        rows.append((name, _NOTHING, _NOTHING, *test, *[_NOTHING] * 4))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "| " + " | ".join("-" * width for width in widths) + " |", *lines[1:]])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    extraction, zeros = _NOTHING, _NOTHING
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
    """Every run is on the same device."""
    if rows[0]["memory"] == "GPU":
        return "what PyTorch allocated on the GPU"
    return "the whole process, Python, libraries, extraction and baselines included"
