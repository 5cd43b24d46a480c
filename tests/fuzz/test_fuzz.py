"""The quick form of fuzzing; the full one: python -m tests.fuzz.campaign --full."""

from pathlib import Path

import pytest

from tests.fuzz.campaign import QUICK, fuzz
from tests.fuzz.child import edited, fire
from tests.fuzz.loaders import LOADERS, Loader


@pytest.mark.parametrize("name", LOADERS)
def test_nothing_but_documented_errors(name: str) -> None:
    found = fuzz(name, QUICK, timeout=120)
    assert found["crash"] == ""
    assert found["cases"] == QUICK
    assert found["refused"] > QUICK // 4


def test_a_crash_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "x"

    def load() -> None:
        if path.read_bytes() != b"fine":
            raise KeyError("undocumented")

    with pytest.raises((KeyError, ExceptionGroup)):
        fire(Loader(path, load, (b"fine",)), 50, 0)


def test_edits() -> None:
    assert edited(b"abc", [("flip", 0, 1, b"")]) == b"cbc"
    assert edited(b"abc", [("insert", 1, 0, b"XY"), ("cut", 4, 4, b"")]) == b"aXYb"
    assert edited(b"", [("flip", 5, 5, b"x"), ("delete", 3, 3, b"x")]) == b""
