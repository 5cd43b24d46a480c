"""The epochs of a run so far, from which everything else about its progress follows."""

import json
from pathlib import Path
from typing import Any

from store.files import publish

Record = dict[str, Any]  # one epoch, plain values: epoch, learning_rate, train_loss, val_*


def best_record(history: list[Record]) -> Record:
    """The epoch with the highest validation MPCA; of several the one with the lowest loss, then the first."""
    return max(history, key=lambda record: (record["val_mpca"], -record["val_loss"], -record["epoch"]))


def epochs_without_improvement(history: list[Record]) -> int:
    """Epochs since the validation MPCA first reached its highest value."""
    highest = max(record["val_mpca"] for record in history)
    first = next(record["epoch"] for record in history if record["val_mpca"] == highest)
    return int(history[-1]["epoch"] - first)


def write_history(path: Path, history: list[Record]) -> None:
    """metrics.jsonl: one line an epoch, written whole each time, so that a resumed run leaves no line twice."""
    lines = [json.dumps(record, allow_nan=False) for record in history]
    publish(path, ("\n".join(lines) + "\n").encode())
