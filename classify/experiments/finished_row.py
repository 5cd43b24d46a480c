"""Reads back a finished run of an earlier comparison: its row of the table and its results."""

from pathlib import Path
from typing import Any

from classify.model.checkpoint import CACHED
from classify.report.results import METRICS, check_results, read_json
from configs.errors import DataError
from configs.schema import Schema, check_document

_ROW: Schema = {
    **dict.fromkeys(("model", "mode", "memory", "run"), str),
    **dict.fromkeys(("val_accuracy", "val_mpca", "test_accuracy", "test_mpca"), float),
    **dict.fromkeys(("seconds_train", "seconds_extract"), float),
    **dict.fromkeys(("epochs", "peak_memory"), int),
    "extract_resumed": bool,
    "zero_share": (float, None),
}
_RESULTS: Schema = {
    "classes": [str],
    "baselines": {"majority": METRICS, "spatial_only": METRICS},
    "pairs_per_class": {"train": [int], "val": [int], "test": [int]},
}
_REMEDY = "remove the file, and this run is trained again"


def load_finished(path: Path, key: str, model: str, mode: str) -> dict[str, Any] | None:
    """The `row` and `results` in `path`, which `classify.experiments.compare` wrote for a run.

    Args:
        key: identifies settings, data and weights of the run.

    Returns:
        None if the run has not finished, or with another key.

    Raises:
        DataError: the file is not what a comparison writes; the message names the field.
    """
    try:
        finished = read_json(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {_REMEDY}") from error
    check_document(path, finished, {"key": str}, DataError, _REMEDY)
    if finished["key"] != key:
        return None
    row = _ROW | ({"zero_share": float} if mode == CACHED else {})
    check_document(path, finished, {"row": row, "results": _RESULTS}, DataError, _REMEDY)
    check_results(path, finished["results"])
    if (finished["row"]["model"], finished["row"]["mode"]) != (model, mode):
        raise DataError(f"{path} is of another run than {model}, {mode}; {_REMEDY}")
    counts = finished["results"]["pairs_per_class"]
    if any(len(values) != len(finished["results"]["classes"]) for values in counts.values()):
        raise DataError(f"{path}: pairs_per_class does not have one number for each class; {_REMEDY}")
    return dict(finished)
