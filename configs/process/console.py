"""Where the log lines of a command go: a stream such as stdout. A run folder's training.log uses the same parts."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from configs.printable import printable
from configs.ranks import rank

_log = logging.getLogger("stage2")


@contextmanager
def console(stream: TextIO) -> Iterator[None]:
    """Within the block, stage2's log lines go to `stream`, without prefix. Only rank 0 logs."""
    with attached(QuietHandler(stream) if rank() == 0 else logging.NullHandler()):
        yield


@contextmanager
def attached(handler: logging.Handler) -> Iterator[None]:
    """Within the block, stage2's log lines also go to `handler`, which is closed at the end."""
    level, propagate = _log.level, _log.propagate
    handler.setFormatter(_Lines("%(message)s"))
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False  # otherwise a root handler would print every line again
    try:
        yield
    finally:
        _log.removeHandler(handler)
        handler.close()
        _log.setLevel(level)
        _log.propagate = propagate


class QuietHandler(logging.StreamHandler[TextIO]):
    """Logging never changes the outcome of a job: a line that cannot be written is dropped."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is that of logging
        """Ignores the error that `emit` is handling."""


class _Lines(logging.Formatter):
    """One line per record, whatever the names in it contain."""

    def format(self, record: logging.LogRecord) -> str:
        """The message with unprintable characters escaped."""
        return printable(super().format(record))
