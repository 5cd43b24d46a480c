"""How many threads a step is worth."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL_BATCH = 128  # pairs; up to here one thread trains a head faster than two


@contextmanager
def threads_for(pairs: int) -> Iterator[None]:
    """One thread for heads on few pairs a step: their operators are too short to share, and waiting for a busy core
    costs more than the other one brings."""
    threads = torch.get_num_threads()
    if pairs <= SMALL_BATCH:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
