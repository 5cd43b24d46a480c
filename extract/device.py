"""The device that a name means on this machine."""

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


def pick_device(name: str) -> torch.device:
    """ "auto" is CUDA where there is one, else the CPU. Raises DeviceError where CUDA is asked for and missing."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise DeviceError("there is no CUDA device on this machine; use --device auto or --device cpu")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and available) else "cpu")
