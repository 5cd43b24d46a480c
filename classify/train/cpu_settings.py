"""CPU settings during training: threads, denormal numbers, and freed memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL_BATCH = 128  # pairs; up to here one thread trains a head faster than two
_TAUGHT_BLOCK = (32 << 20) - 8192  # bytes, just below the largest block that raises glibc's mmap threshold


@contextmanager
def threads_for_batch(pairs: int) -> Iterator[None]:
    """Uses one thread while heads train on at most `SMALL_BATCH` pairs a step.

    Their operators are too short to be shared: waiting for a busy second core costs more than it saves.
    """
    threads = torch.get_num_threads()
    if pairs <= SMALL_BATCH:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Flushes denormal numbers to zero: parameters of dead units become denormal, which slows CPU training 3 times."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)  # the caller's arithmetic stays unchanged


def keep_freed_memory() -> None:
    """Makes glibc keep up to 64 MB that a step has freed, for the next step.

    glibc returns freed memory to the kernel above twice the largest block freed so far (malloc.c, "dynamic mmap
    threshold"). Fetching it again takes a tenth of a step on a large batch. The block allocated here is never written.
    """
    torch.empty(_TAUGHT_BLOCK, dtype=torch.uint8)
