"""Names from data cannot change the terminal, and cannot imitate other lines of the output."""

import io
import logging
from pathlib import Path

import pytest

from classify.evaluate.metrics import metrics_text
from configs.errors import DataError
from configs.process.console import console
from store.commands.describe import verify_text
from store.format.ledger import Ledger
from tests.jobs import run_cli

NAME = "cafe\x1b]0;title\x07\nerror: all is well\x9b2J"
ESCAPED = r"cafe\x1b]0;title\x07\nerror: all is well\x9b2J"


def test_h6_errors_are_one_printable_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert str(DataError(f"scene {NAME} is empty")) == f"scene {ESCAPED} is empty"
    (tmp_path / "c.toml").write_text(f"{NAME.encode('unicode_escape').decode()!r} = 1".replace("'", '"'))
    assert run_cli("train", "--config", tmp_path / "c.toml") == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "\x1b" not in printed


def test_h6_log_lines_are_printable() -> None:
    stream = io.StringIO()
    with console(stream):
        logging.getLogger("stage2").warning("scene %s has no labels ✅", NAME)
        logging.getLogger("stage2").info("")
    assert stream.getvalue() == f"scene {ESCAPED} has no labels ✅\n\n"


def test_h6_the_texts_of_commands_are_printable() -> None:
    fault = {"kind": "zero_visual", "message": f"{NAME}: person 1"}
    report = {"path": "s", "faults": [fault], "fault_counts": {"zero_visual": 1}, "bad_units": [0], "units": 1}
    assert verify_text(report).splitlines()[1].strip() == f"zero_visual      {ESCAPED}: person 1"
    metrics = {"per_class_accuracy": [0.5], "class_names": [NAME], "classes_present": 1, "accuracy": 0.5, "mpca": 0.5}
    metrics |= {"split": "test", "pairs": 3, "data": Ledger.empty().to_dict()}
    assert metrics_text(metrics).splitlines()[1:] == [f"  {ESCAPED} 0.5000"]
