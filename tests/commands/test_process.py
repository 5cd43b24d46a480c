"""A command's process ends at once, with its exit code, and all that it has said is there."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def ended(code: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """A process that runs `code` as its main function."""
    text = f"import logging, sys\nfrom configs.process import end_at_once\ndef main():\n    {code}\nend_at_once(main)"
    settings = {"stdout": subprocess.PIPE} | settings
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-c", text], cwd=ROOT, text=True, stderr=subprocess.PIPE, check=False, **settings
    )


@pytest.mark.parametrize(("code", "expected"), [("pass", 0), ("sys.exit(0)", 0), ("sys.exit(4)", 4), ("sys.exit()", 0)])
def test_the_exit_code_is_the_mains(code: str, expected: int) -> None:
    assert ended(code).returncode == expected


def test_what_is_printed_and_logged_is_not_lost(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "print('x' * 100_000); sys.stderr.write('said'); "
    done = ended(code + f"logging.basicConfig(filename={str(log)!r}); logging.error('noted')")
    assert (done.stdout, done.stderr, done.returncode) == ("x" * 100_000 + "\n", "said", 0)
    assert "noted" in log.read_text()


def test_a_text_is_printed_and_an_error_shown() -> None:
    done = ended("sys.exit('no')")
    assert (done.returncode, done.stderr) == (1, "no\n")
    done = ended("raise ValueError('odd')")
    assert done.returncode == 1 and "ValueError: odd" in done.stderr


def test_output_that_cannot_be_written_is_no_success() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full")
    with full.open("w") as target:
        done = ended("print('x')", stdout=target)
    assert done.returncode != 0 and "No space left" in done.stderr


def test_nothing_is_taken_apart() -> None:
    """An object's last words are never said."""
    code = "global kept; kept = type('Kept', (), {'__del__': lambda self: print('taken apart')})()"
    assert ended(code).stdout == ""
