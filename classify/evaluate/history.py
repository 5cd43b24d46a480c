"""The history of a run: one record per epoch, from which the best epoch and early stopping follow."""

import json
from pathlib import Path
from typing import Any

from configs.errors import CheckpointError
from configs.schema import Schema, check_document
from store.files import publish

# One epoch, plain values:
# - epoch: from 1; 0 is a fine-tuned model before its first step
# - learning_rate: of the last step
# - train_loss: mean over the epoch; None in epoch 0
# - val_loss, val_accuracy, val_mpca, val_classes_present, val_per_class_accuracy: see `evaluate`
Record = dict[str, Any]
_RECORD: Schema = {
    "epoch": int,
    "learning_rate": float,
    "train_loss": (float, None),
    "val_loss": float,
    "val_accuracy": float,
    "val_mpca": float,
    "val_classes_present": int,
    "val_per_class_accuracy": [(float, None)],
}


def check_history(path: Path, history: list[Any], epoch: int) -> None:
    """Checks the records that were loaded from the checkpoint `path`, which was written after `epoch`.

    Raises:
        CheckpointError: a record is not what training writes, or an epoch is missing; the message names the field.
    """
    check_document(path, {"history": history}, {"history": [_RECORD]}, CheckpointError, "use another checkpoint")
    epochs = [record["epoch"] for record in history]
    first = epochs[0] if epochs else 0
    if len(epochs) != epoch - first + 1 or first not in (0, 1) or epochs != list(range(first, epoch + 1)):
        raise CheckpointError(f"{path}: history is of the epochs {epochs[:9]}, not of 1 to {epoch}; use another one")


def best_record(history: list[Record]) -> Record:
    """The epoch with the highest validation MPCA; ties go to the lowest validation loss, then to the first epoch."""
    return max(history, key=lambda record: (record["val_mpca"], -record["val_loss"], -record["epoch"]))


def epochs_without_improvement(history: list[Record]) -> int:
    """Epochs since the validation MPCA first reached its highest value; early stopping compares it with `patience`."""
    highest = max(record["val_mpca"] for record in history)
    first = next(record["epoch"] for record in history if record["val_mpca"] == highest)
    return int(history[-1]["epoch"] - first)


def write_history(path: Path, history: list[Record]) -> None:
    """Writes metrics.jsonl, one line per epoch. Rewrites the whole file, so a resumed run repeats no line."""
    lines = [json.dumps(record, allow_nan=False) for record in history]
    publish(path, ("\n".join(lines) + "\n").encode())
