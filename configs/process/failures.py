"""What a command says and returns when it ends early. Standard library only.

Every exception that leaves a command becomes one sentence and an exit code here. The traceback of an unexpected one
goes to a file that the sentence names.
"""

import errno
import os
import shlex
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from configs.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, Stage2Error, StorageError
from configs.printable import printable_lines

_AGAIN = "run the same command again"
_KEPT = f"finished units are kept; {_AGAIN} to continue"
_NOT_STARTED = f"training had not started; {_AGAIN}, which reuses finished units of an extraction"
_ADVICE = {  # by command; the part of the program that was running can say more, see `how_to_continue`
    "extract": _KEPT,
    "train": _NOT_STARTED,
    "finetune": _NOT_STARTED,
    "run": _NOT_STARTED,
    "compare": f"finished runs and extracted units in --out are kept; {_AGAIN} to continue",
    "predict": f"--out was not written; {_AGAIN}, which starts from the beginning",
    "synth": f"nothing is kept; {_AGAIN}",
    "demo": f"delete the folder --out and {_AGAIN}",
    "store repair": f"repaired units are kept; {_AGAIN} to continue",
}
_READS_ONLY = f"nothing was changed; {_AGAIN}"
_REMEDIES = {
    errno.ENOSPC: "free some space or choose another disk",
    errno.EDQUOT: "free some space or choose another disk",
    errno.EACCES: "change its permissions or choose another path",
    errno.EPERM: "change its permissions or choose another path",
    errno.EROFS: "choose another disk",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "allow more open files (ulimit -n)",
}
_LONG = 200  # characters of a path that are printed
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "Cannot allocate memory", "failed to map segment")


@dataclass(frozen=True)
class Failure:
    """One sentence, and the exit code of the process."""

    sentence: str
    exit_code: int

    @property
    def line(self) -> str:
        """What is printed on standard error."""
        interrupted = self.exit_code in {EXIT_INTERRUPTED, EXIT_TERMINATED}
        return printable_lines(self.sentence if interrupted else f"error: {self.sentence}")


class TerminatedError(KeyboardInterrupt):
    """SIGTERM. Whatever cleans up after Ctrl-C cleans up after SIGTERM too."""


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Within the block, the first SIGTERM raises TerminatedError and later ones are ignored.

    Nothing changes under torchrun, where a process may wait in a collective operation that no Python handler ends, nor
    in threads, nor if SIGTERM is handled already.
    """
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or "WORLD_SIZE" in os.environ or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise TerminatedError

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def how_to_continue(advice: Callable[[], str], override: bool = False) -> Iterator[None]:
    """Adds `advice()` to an interrupt or a storage error of the block: what is kept, and how to go on.

    The advice follows the word "interrupted" or "stopped": "after epoch 3; run again with ...". That of the innermost
    block is printed, unless an outer block overrides it.
    """
    try:
        yield
    except (KeyboardInterrupt, StorageError) as error:
        if override:
            error.__notes__ = []
        if not _note(error):
            error.add_note(advice())
        raise


def resume_advice(folder: Path, epoch: int | None = None, options: str = "") -> str:
    """The advice for a run in `folder`.

    Args:
        epoch: the last saved epoch, 0 if none is; None outside the training loop.
        options: other options that have to be given again, such as "--seeds 4 ".
    """
    where = ";" if epoch is None else f"after epoch {epoch};" if epoch else "before the end of the first epoch;"
    return f"{where} run again with {options}--resume auto --checkpoint_dir {shlex.quote(str(folder))} to continue"


def failure_of(error: BaseException, arguments: Sequence[str]) -> Failure:
    """The sentence and the exit code for an exception that ended the command line `arguments`."""
    if isinstance(error, KeyboardInterrupt):
        code = EXIT_TERMINATED if isinstance(error, TerminatedError) else EXIT_INTERRUPTED
        return Failure(f"interrupted {_note(error) or '; ' + _advice(arguments)}".replace(" ;", ";", 1), code)
    if isinstance(error, Stage2Error):
        return Failure(_stage2_sentence(error, arguments), error.exit_code)
    if _is_out_of_memory(error):
        remedy = "use a smaller --batch_size, fewer --num_workers or a smaller --feature_memory, or free some memory"
        return Failure(f"out of memory ({_first_line(error)}); {remedy} (ulimit -v limits it too)", 1)
    if isinstance(error, OSError) and error.filename is not None:
        remedy = _REMEDIES.get(error.errno or 0, "check the path")
        return Failure(
            f"{_shortened(error.filename)} cannot be used ({error.strerror}); {remedy}", StorageError.exit_code
        )
    code = StorageError.exit_code if isinstance(error, OSError) else 1
    return Failure(f"unexpected {type(error).__name__}: {_first_line(error)} ({_save_traceback(error)})", code)


def _stage2_sentence(error: Stage2Error, arguments: Sequence[str]) -> str:
    note, cause = _note(error), error.__cause__
    if note:
        return f"{error}; stopped {note}".replace("stopped ;", "then", 1)
    if isinstance(error, StorageError) and isinstance(cause, OSError) and cause.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"{error}; {_advice(arguments)}"
    return str(error)


def _note(error: BaseException) -> str:
    notes: list[str] = getattr(error, "__notes__", [])
    return notes[0] if notes else ""


def _advice(arguments: Sequence[str]) -> str:
    words = [word for word in arguments if not word.startswith("-")]
    return _ADVICE.get(" ".join(words[:2]), _ADVICE.get("".join(words[:1]), _READS_ONLY))


def _is_out_of_memory(error: BaseException) -> bool:
    known = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    return known or (
        isinstance(error, RuntimeError | ImportError) and any(text in str(error) for text in _OUT_OF_MEMORY)
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _shortened(path: object) -> str:
    text = os.fsdecode(path) if isinstance(path, str | bytes) else str(path)
    return text if len(text) <= _LONG else f"{text[: _LONG // 2]}...{text[-20:]} ({len(text)} characters)"


def _save_traceback(error: BaseException) -> str:
    """Writes the traceback to a new file in the temporary folder; returns where it is."""
    text = "".join(traceback.format_exception(error))
    try:
        descriptor, path = tempfile.mkstemp(prefix="stage2-error-", suffix=".txt")  # random name, O_EXCL, mode 600
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        last = traceback.extract_tb(error.__traceback__)[-1:]
        return "; ".join(f"in {frame.filename}, line {frame.lineno}" for frame in last) or "no traceback"
    return f"please report it with the traceback in {path}"
