"""final_results.json and config.json: what a run was and what came of it."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from classify.evaluate.history import Record, best_record
from classify.model.checkpoint import RunInfo
from store.files import publish

RESULTS, CONFIG = "final_results.json", "config.json"
PACKAGES = ("stage2", "torch", "torchvision", "numpy", "h5py", "faiss-cpu")


def build_results(
    info: RunInfo, history: list[Record], test: dict[str, Any], baselines: dict[str, Any], seconds: dict[str, float]
) -> dict[str, Any]:
    """The content of final_results.json, the guide's keys first; plain values.

    `best_val_accuracy` is that of the epoch with the best validation MPCA, whose model was tested.
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
        "versions": versions(),
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Publishes `content` as indented JSON. Raises StorageError."""
    publish(path, (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that make the numbers."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
