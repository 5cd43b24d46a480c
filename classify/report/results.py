"""final_results.json: the results of a run, written once it has finished, and read by reports."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from classify.evaluate.history import Record, best_record
from classify.model.checkpoint import RunInfo
from classify.replacement import find_run
from configs.errors import DataError
from configs.printable import printable
from configs.read_file import DOCUMENT_BYTES, read_file
from configs.schema import Schema, check_document
from store.files import publish
from store.format.ledger import damage_text

METRICS = {"accuracy": float, "mpca": float}
_COUNTS: Schema = {"frames": int, "persons": int, "pairs": int}
# What reports and comparisons read from final_results.json; a run may write more.
RESULTS: Schema = {
    "test_accuracy": float,
    "test_mpca": float,
    "best_val_accuracy": float,
    "best_val_mpca": float,
    "config": {"backbone_name": str, "fusion_strategy": str, "visual_feature_dim": int, "weights": str},
    "classes": [str],
    "test_per_class_accuracy": [(float, None)],
    "test_confusion_matrix": [[int]],
    "test_classes_present": int,
    "test_pairs": int,
    "best_epoch": int,
    "epochs_run": int,
    "baselines": {str: METRICS},
    "mode": str,
    "store_fingerprint": str,
    "seconds": {"train": float, str: float},
    "versions": {str: str},
    "class_table?": {str: {"train": int, "val": int, "test": int, "to_earlier_class": int}},
    "warnings?": [str],
    "data?": {
        "damaged": int,
        "planned": _COUNTS,
        "used": _COUNTS,
        "skipped": {"frames": {str: int}, "persons": {str: int}, "pairs": {str: int}},
    },
}
PACKAGES = ("stage2", "torch", "torchvision", "numpy", "h5py", "faiss-cpu")  # results depend on their versions


def build_results(
    info: RunInfo, history: list[Record], test: dict[str, Any], baselines: dict[str, Any], seconds: dict[str, float]
) -> dict[str, Any]:
    """The content of final_results.json as plain values, the training guide's keys first.

    The validation metrics are those of the epoch with the best validation MPCA, whose model is tested.

    Args:
        test: result of `classify.evaluate.metrics.evaluate` on the test split.
        baselines: by name, see classify.evaluate.baselines.
        seconds: duration of each stage.
    """
    best = best_record(history)
    return {
        "test_accuracy": test["accuracy"],
        "test_mpca": test["mpca"],
        "best_val_accuracy": best["val_accuracy"],
        "best_val_mpca": best["val_mpca"],
        "config": info.config.to_dict(),
        "classes": list(info.config.class_names),
        "test_per_class_accuracy": test["per_class_accuracy"],
        "test_confusion_matrix": test["confusion_matrix"],
        "test_classes_present": test["classes_present"],
        "test_pairs": test["pairs"],
        "test_loss": test["loss"],
        "best_epoch": best["epoch"],
        "best_val_classes_present": best["val_classes_present"],
        "baselines": baselines,
        "mode": info.kind,
        "backbone": info.backbone,
        "store_fingerprint": info.store_fingerprint,
        "epochs_run": history[-1]["epoch"],
        "seconds": seconds,
        "versions": package_versions(),
    }


def finished_text(results: dict[str, Any]) -> str:
    """The last lines of a training command: the run folder, and what was skipped because of damage."""
    lines = [f"Run folder: {results['run']}", damage_text(results["data"])]
    return "\n".join(filter(None, lines))


def read_results(run: Path) -> dict[str, Any]:
    """The content of final_results.json in run folder `run`.

    Raises:
        DataError: the run has not finished, or the file is not what stage2 writes; the message names the field.
    """
    path = find_run(run).results
    try:
        results: dict[str, Any] = read_json(path)
    except OSError as error:
        raise DataError(
            f"{run} does not contain a finished run ({path.name}: {error.strerror}); train one, or check the path"
        ) from error
    check_results(path, results, RESULTS)
    return results


def read_json(path: Path) -> Any:
    """The JSON document in the file `path` of a run folder.

    Raises:
        OSError: the file cannot be read, or is a link. DataError: it is not JSON.
    """
    data = read_file(path, max_bytes=DOCUMENT_BYTES, follow_links=False)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({printable(error)}); train the run again") from error


def check_results(path: Path, results: Any, schema: Schema = RESULTS) -> None:
    """Checks the content of final_results.json, or a copy of it that was read from `path`. Raises DataError."""
    check_document(path, results, schema, DataError, "stage2 did not write this file; check the path")
    classes = len(results["classes"])
    matrix = results["test_confusion_matrix"]
    rows = {"test_per_class_accuracy": [results["test_per_class_accuracy"]], "test_confusion_matrix": [matrix, *matrix]}
    for name, lists in rows.items():
        if any(len(values) != classes for values in lists):
            raise DataError(f"{path}: {name} does not have {classes} entries, one for each class; check the path")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Atomically writes `content` as indented JSON. Raises StorageError, or ValueError for NaN and infinity."""
    publish(path, (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def package_versions() -> dict[str, str]:
    """The versions of Python and of PACKAGES."""
    return {"python": platform.python_version()} | {name: _package_version(name) for name in PACKAGES}


def _package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
