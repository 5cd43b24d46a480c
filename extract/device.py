"""Selects the device and explains out-of-memory errors."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from configs.errors import DeviceError

# PyTorch raises a plain RuntimeError when the main memory is full
_CPU_MESSAGES = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory")


def is_out_of_memory(error: Exception) -> bool:
    """Whether the error reports that the GPU's memory or the main memory is full."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in _CPU_MESSAGES)


@contextmanager
def explain_out_of_memory(crops: int) -> Iterator[None]:
    """Turns an out-of-memory error into one that names the batch size of `crops` crops and the remedies.

    Raises:
        DeviceError: memory was full.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"out of memory with batches of {crops} crops; use a smaller --batch_size or --num_workers"
        ) from error


def pick_device(name: str) -> torch.device:
    """Returns the device "cpu" or "cuda"; "auto" is CUDA if available. Raises DeviceError if "cuda" is missing."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise DeviceError("there is no CUDA device on this machine; use --device auto or --device cpu")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and available) else "cpu")
