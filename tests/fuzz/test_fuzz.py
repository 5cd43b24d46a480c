"""The quick form of fuzzing. The full one: python -m tests.fuzz.campaign --full."""

from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.campaign import QUICK, fuzz
from tests.fuzz.loader import Loader
from tests.fuzz.loaders import LOADERS
from tests.fuzz.process import apply_changes, apply_edits, fuzz_loader


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    return fuzz(list(LOADERS), QUICK, timeout=250)


@pytest.mark.parametrize("name", LOADERS)
def test_loaders_raise_only_documented_errors(results: dict[str, dict[str, Any]], name: str) -> None:
    result = results[name]
    assert result["crash"] == ""
    assert result["cases"] == QUICK
    assert result["refused"] > QUICK // 4


def test_an_undocumented_error_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "x"

    def load() -> None:
        if path.read_bytes() != b"fine":
            raise KeyError("undocumented")

    with pytest.raises((KeyError, ExceptionGroup)):
        fuzz_loader(Loader(path, load, (b"fine",)), 50, 0)


def test_edits() -> None:
    assert apply_edits(b"abc", [("flip", 0, 1, b"")]) == b"cbc"
    assert apply_edits(b"abc", [("insert", 1, 0, b"XY"), ("cut", 4, 4, b"")]) == b"aXYb"
    assert apply_edits(b"", [("flip", 5, 5, b"x"), ("delete", 3, 3, b"x")]) == b""


def test_changes_of_values() -> None:
    document = {"a": [1, {"b": 2}], "c": 3}
    assert apply_changes(document, [("replace", [0, 1, 0], 0)]) == {"a": [1, {"b": None}], "c": 3}
    assert apply_changes(document, [("delete", [1], 0)]) == {"a": [1, {"b": 2}]}
    assert apply_changes(document, [("copy", [0, 0], 0)]) == {"a": [1, 1, {"b": 2}], "c": 3}
    assert apply_changes(document, [("add", [1], 1)]) == document | {"c?": True}
    assert apply_changes(3, [("delete", [0], 0)]) is None
