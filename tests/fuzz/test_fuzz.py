"""The quick form of fuzzing. The full one: python -m tests.fuzz.campaign --full."""

from pathlib import Path

import pytest

from tests.fuzz.campaign import QUICK, fuzz
from tests.fuzz.loaders import LOADERS, Loader
from tests.fuzz.process import apply_edits, fuzz_loader


@pytest.mark.parametrize("name", LOADERS)
def test_loaders_raise_only_documented_errors(name: str) -> None:
    result = fuzz(name, QUICK, timeout=120)
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
