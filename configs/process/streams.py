"""The process around a command: its standard streams and its end. Standard library only.

Standard output and standard error never end a job, be they closed or a pipe that nobody reads:
`stage2 train | head -1` closes the pipe after a line, and `>&-` starts a command without standard output. The job goes
on in both cases, with its own exit code.
"""

import io
import logging
import os
import resource
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn, TextIO

from configs.errors import Stage2Error, StorageError

_ADDRESS_SPACE = 4 * 2**30  # bytes; measured: training on the CPU fails below
_NAMES = {1: "standard output", 2: "standard error"}


class Sink(io.TextIOWrapper):
    """A text stream on a standard stream's file descriptor.

    After EPIPE the descriptor is redirected to the null device, so that libraries and child processes can write to it
    too. Any other failure of standard output raises StorageError; standard error is then ignored, because nothing more
    can be said.
    """

    def write(self, text: str) -> int:
        """Writes `text`. Raises StorageError."""
        try:
            return super().write(text)
        except OSError as error:
            self._handle(error)
            return len(text)

    def flush(self) -> None:
        """Writes what is buffered. Raises StorageError."""
        try:
            super().flush()
        except OSError as error:
            self._handle(error)

    def _handle(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):
            _redirect_to_null(self.fileno())
            with suppress(OSError):
                super().flush()
        elif self.fileno() == 1:
            raise StorageError(f"{_NAMES[1]} cannot be written ({error.strerror}); free some space") from error


def open_sinks() -> None:
    """Makes standard output and error of this process sinks; closed descriptors are opened on the null device.

    A closed descriptor would otherwise be given to the next file that is opened, and C code that prints would write
    into it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            _redirect_to_null(descriptor)
    # the interpreter uses the names with underscores during its teardown
    sys.stdout = sys.__stdout__ = _sink(1, sys.stdout)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _sink(2, sys.stderr)  # type: ignore[misc]


def _sink(descriptor: int, stream: TextIO | Any) -> Sink:
    errors = "backslashreplace"  # a log line that the terminal's encoding lacks must not fail
    if isinstance(stream, io.TextIOWrapper):
        line_buffering, encoding = stream.line_buffering, stream.encoding
        return Sink(stream.detach(), encoding=encoding, errors=errors, line_buffering=line_buffering)
    binary = io.BufferedWriter(io.FileIO(descriptor, "w", closefd=False))
    return Sink(binary, encoding="utf-8", errors=errors)


def _redirect_to_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)


def check_address_space(arguments: Sequence[str]) -> None:
    """Refuses to start PyTorch under a small `ulimit -v`, where it crashes with a segmentation fault.

    Raises:
        Stage2Error: the limit is below _ADDRESS_SPACE, and the command line needs PyTorch.
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    inspects_store = arguments[:1] == ["store"] and arguments[1:2] != ["repair"]
    if inspects_store or not arguments or {"--help", "-h", "--version"} & set(arguments):
        return
    if limit != resource.RLIM_INFINITY and limit < _ADDRESS_SPACE:
        raise Stage2Error(
            f"the address space is limited to {limit / 2**30:.1f} GiB (ulimit -v), but PyTorch needs at least "
            f"{_ADDRESS_SPACE / 2**30:.0f} GiB; raise the limit"
        )


def run_and_exit(function: Callable[[], None]) -> NoReturn:
    """Runs `function` and exits with its exit code via os._exit, which skips over 1 s of teardown with PyTorch loaded.

    With the environment variable STAGE2_NORMAL_EXIT=1 the interpreter exits normally, as coverage and profilers need.
    """
    open_sinks()
    code: str | int | None = 0
    try:
        function()
    except SystemExit as stop:
        code = stop.code
    if os.environ.get("STAGE2_NORMAL_EXIT") == "1" or isinstance(code, str):  # Python prints a text
        sys.exit(code)
    try:
        logging.shutdown()
        sys.stdout.flush()
    except Stage2Error as error:
        sys.stderr.write(f"error: {error}\n")
        code = code or error.exit_code
    sys.stderr.flush()
    os._exit(code or 0)
