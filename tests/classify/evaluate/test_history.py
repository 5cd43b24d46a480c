"""The history of a run that is resumed is checked before it is used."""

from pathlib import Path
from typing import Any

import pytest

from classify.evaluate.history import check_history, write_history
from configs.errors import CheckpointError


def record(epoch: Any, **changes: Any) -> dict[str, Any]:
    values = {"learning_rate": 1e-3, "train_loss": None, "val_loss": 1, "val_accuracy": 0.5, "val_mpca": 0.5}
    return {"epoch": epoch, **values, "val_classes_present": 2, "val_per_class_accuracy": [0.5, None], **changes}


@pytest.mark.parametrize("first", [0, 1])
def test_a_history_from_the_first_epoch_or_a_warm_start_is_accepted(first: int) -> None:
    check_history(Path("last.pth"), [record(epoch) for epoch in range(first, 4)], 3)


@pytest.mark.parametrize(
    ("history", "message"),
    [
        ([record("1")], r"history\[0\]\.epoch is '1', not an integer"),
        ([record(1), record(2, val_mpca=float("nan"))], r"history\[1\]\.val_mpca is nan, not a number"),
        ([record(1, val_loss=None)], r"history\[0\]\.val_loss is None"),
        ([{}], r"history\[0\]\.epoch is missing"),
        ([], "history is of the epochs"),
        ([record(1), record(3)], r"epochs \[1, 3\], not of 1 to 2"),
        ([record(2)], r"epochs \[2\]"),
        ([record(1)], r"epochs \[1\], not of 1 to 2"),
    ],
)
def test_h2_a_malformed_history_is_named(history: list[Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=rf"last\.pth: {message}|last\.pth: .*{message}"):
        check_history(Path("last.pth"), history, 2)


def test_a_number_that_json_does_not_have_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_history(tmp_path / "metrics.jsonl", [record(1, val_loss=float("nan"))])
    assert not list(tmp_path.iterdir())
