"""How PyTorch and numpy say that a memory is full, and how an extraction does."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from configs.errors import DeviceError

_ON_CPU = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory")  # it has no error type of its own


def is_full(error: Exception) -> bool:
    """Whether the error is of a full memory, a GPU's or the main one."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in _ON_CPU)


@contextmanager
def full_memory_said(crops: int) -> Iterator[None]:
    """Turns an error of full memory, in batches of so many crops, into one sentence.

    Raises:
        DeviceError: the memory was full; it names the remedies.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_full(error):
            raise
        remedy = "give a smaller --batch_size or --num_workers"
        raise DeviceError(f"the memory is full with batches of {crops} crops; {remedy}") from error
