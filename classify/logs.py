"""Where the lines of a run go: a stream for people, and the run's training.log."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from configs.ranks import rank

NAME = "stage2"
LOG = "training.log"


@contextmanager
def console(stream: TextIO) -> Iterator[None]:
    """Sends the product's log lines, bare, to `stream` for the length of the block; of several ranks, the first's."""
    with _attached(logging.StreamHandler(stream) if rank() == 0 else logging.NullHandler()):
        yield


@contextmanager
def run_log(folder: Path) -> Iterator[None]:
    """Appends the product's log lines, bare, to training.log in `folder` for the length of the block."""
    with _attached(logging.FileHandler(folder / LOG, encoding="utf-8") if rank() == 0 else logging.NullHandler()):
        yield


@contextmanager
def _attached(handler: logging.Handler) -> Iterator[None]:
    logger = logging.getLogger(NAME)
    level, propagate = logger.level, logger.propagate
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # a root handler would print every line twice
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.setLevel(level)
        logger.propagate = propagate
