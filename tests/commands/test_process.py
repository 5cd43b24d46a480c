"""The command's process exits at once with the right exit code, and flushes its output and logs first."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cli
from tests.jobs import run_cli

ROOT = Path(__file__).parents[2]
PRINTS_AT_TEARDOWN = "global kept; kept = type('Kept', (), {'__del__': lambda self: print('teardown')})()"


def run_in_process(code: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Runs `code` as the body of a function under `run_and_exit`, in a new process."""
    text = f"import logging, sys\nfrom cli import run_and_exit\ndef main():\n    {code}\nrun_and_exit(main)"
    settings = {"stdout": subprocess.PIPE} | settings
    return subprocess.run(
        [sys.executable, "-c", text], cwd=ROOT, text=True, stderr=subprocess.PIPE, check=False, **settings
    )


@pytest.mark.parametrize(("code", "expected"), [("pass", 0), ("sys.exit(0)", 0), ("sys.exit(4)", 4), ("sys.exit()", 0)])
def test_the_exit_code_is_that_of_the_function(code: str, expected: int) -> None:
    assert run_in_process(code).returncode == expected


def test_output_and_logs_are_flushed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "print('x' * 100_000); sys.stderr.write('an error'); "
    done = run_in_process(code + f"logging.basicConfig(filename={str(log)!r}); logging.error('logged')")
    assert (done.stdout, done.stderr, done.returncode) == ("x" * 100_000 + "\n", "an error", 0)
    assert "logged" in log.read_text()


def test_an_exit_text_and_an_unexpected_error_are_printed() -> None:
    done = run_in_process("sys.exit('no')")
    assert (done.returncode, done.stderr) == (1, "no\n")
    done = run_in_process("raise ValueError('odd')")
    assert done.returncode == 1 and "ValueError: odd" in done.stderr


def test_output_that_cannot_be_written_is_an_error() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full")
    with full.open("w") as target:
        done = run_in_process("print('x')", stdout=target)
    assert done.returncode != 0 and "No space left" in done.stderr


def test_teardown_is_skipped_unless_the_environment_asks_for_a_normal_exit() -> None:
    assert run_in_process(PRINTS_AT_TEARDOWN).stdout == ""
    normal = run_in_process(PRINTS_AT_TEARDOWN + "; sys.exit(4)", env=os.environ | {"STAGE2_NORMAL_EXIT": "1"})
    assert (normal.stdout, normal.returncode) == ("teardown\n", 4)


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        (("train",), "--resume auto"),
        (("run", "test"), "--resume auto"),
        (("extract",), "finished work is kept"),
        (("store", "info", "train"), "run the same command again"),
    ],
)
def test_an_interrupt_exits_with_130_and_tells_how_to_continue(
    command: tuple[str, ...], advice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(**_: Any) -> None:
        raise KeyboardInterrupt

    for group, name in ((cli.stage2, command[0]), (cli.store_group, "info")):
        if name != "store":
            monkeypatch.setattr(group.commands[name], "callback", interrupt)
    assert run_cli(*command) == 130
    error = capsys.readouterr().err.strip()
    assert error.startswith("interrupted; ")
    assert advice in error
