"""Every exception becomes one sentence and an exit code; the traceback of an unexpected one is in a named file."""

import errno
import os
import re
import signal
import stat
from pathlib import Path

import pytest

from configs.errors import ConfigError, LockedError, StorageError
from configs.process.failures import (
    TerminatedError,
    failure_of,
    how_to_continue,
    resume_advice,
    sigterm_interrupts,
)


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def raised(error: BaseException) -> BaseException:
    """The error with a traceback."""
    try:
        raise error
    except BaseException as same:
        return same


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ConfigError("epochs is 0"), 2, ["epochs is 0"]),
        (LockedError("busy"), 75, ["busy"]),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 74, ["/x/y", "Permission denied", "permissions"]),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 74, ["/x/y", "free some space"]),
        (MemoryError("Unable to allocate 3 GiB"), 1, ["Unable to allocate 3 GiB", "--batch_size"]),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 1, ["out of memory", "ulimit -v"]),
        (ImportError("libtorch.so: failed to map segment from shared object"), 1, ["out of memory"]),
    ],
)
def test_p8_expected_errors_are_one_sentence(
    error: Exception, code: int, words: list[str], temporary_folder: Path
) -> None:
    failure = failure_of(raised(error), ["train"])
    assert failure.exit_code == code
    assert all(word in failure.sentence for word in words)
    assert failure.line == f"error: {failure.sentence}" and "\n" not in failure.line
    assert not list(temporary_folder.iterdir())


def test_p8_a_long_name_is_shortened() -> None:
    name = "x" * 300
    failure = failure_of(OSError(errno.ENAMETOOLONG, "File name too long", name), [])
    assert failure.exit_code == 74 and name not in failure.sentence and "300 characters" in failure.sentence


def test_p8_an_unexpected_error_has_its_traceback_in_a_private_file(temporary_folder: Path) -> None:
    failure = failure_of(raised(ValueError("odd\nvalue")), ["train"])
    assert failure.exit_code == 1 and "ValueError: odd" in failure.sentence and "\n" not in failure.sentence
    (path,) = temporary_folder.iterdir()
    assert str(path) in failure.sentence
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "test_failures.py" in path.read_text() and "ValueError: odd\nvalue" in path.read_text()
    again = failure_of(raised(ValueError("odd")), ["train"])
    assert len(list(temporary_folder.iterdir())) == 2 and again.sentence != failure.sentence


def test_p8_without_a_temporary_folder_the_place_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    assert re.search(r"test_failures.py, line \d+", failure_of(raised(ValueError("odd")), []).sentence)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("extract --data_path x", "finished units are kept"),
        ("train --data_path x", "training had not started"),
        ("compare --out x", "finished runs"),
        ("synth x", "nothing is kept"),
        ("demo", "delete"),
        ("predict run", "from the beginning"),
        ("store repair s", "repaired units are kept"),
        ("store info extract", "nothing was changed"),
        ("report run", "nothing was changed"),
    ],
)
def test_p5_each_command_says_what_is_kept(command: str, words: str) -> None:
    failure = failure_of(KeyboardInterrupt(), command.split())
    assert failure.exit_code == 130
    assert failure.line.startswith("interrupted; ") and words in failure.line


def test_p5_the_innermost_advice_is_printed_unless_overridden() -> None:
    def interrupt(override: bool) -> str:
        with (
            pytest.raises(KeyboardInterrupt) as stop,
            how_to_continue(lambda: "; outer", override),
            how_to_continue(lambda: resume_advice(Path("my run"), 16)),
        ):
            raise KeyboardInterrupt
        return failure_of(stop.value, ["train"]).line

    inner = "interrupted after epoch 16; run again with --resume auto --checkpoint_dir 'my run' to continue"
    assert interrupt(False) == inner
    assert interrupt(True) == "interrupted; outer"


def test_p6_a_full_disk_says_how_to_continue() -> None:
    def full() -> StorageError:
        error = StorageError("could not write last.pth")
        error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
        return error

    with pytest.raises(StorageError) as stop, how_to_continue(lambda: resume_advice(Path("r"), 2)):
        raise full()
    failure = failure_of(stop.value, ["train"])
    assert failure.exit_code == 74
    assert failure.sentence == (
        "could not write last.pth; stopped after epoch 2; run again with --resume auto --checkpoint_dir r to continue"
    )
    assert failure_of(full(), ["extract"]).sentence.endswith(
        "finished units are kept; run the same command again to continue"
    )
    assert failure_of(StorageError("no locks"), ["extract"]).sentence == "no locks"


def test_p4_the_first_sigterm_interrupts_and_later_ones_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(TerminatedError) as stop, sigterm_interrupts():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
    assert failure_of(stop.value, ["synth"]).exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
