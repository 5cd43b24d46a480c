"""final_results.json: the results of a run, written once it has finished, and read by reports."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from classify.evaluate.history import Record, best_record
from classify.model.checkpoint import RunInfo
from classify.run_folder import RunFolder
from configs.errors import DataError
from store.files import publish

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


def read_results(run: Path) -> dict[str, Any]:
    """The content of final_results.json in run folder `run`. Raises DataError if the run has not finished."""
    path = RunFolder(run).results
    try:
        results = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{run} does not contain a finished run ({path.name}: {error}); train one, or check the path"
        ) from error
    if not isinstance(results, dict) or "baselines" not in results:
        raise DataError(f"{path} was not written by stage2; check the path")
    return results


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
