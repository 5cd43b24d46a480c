"""How PyTorch says that a memory is full."""

import torch

_ON_CPU = ("DefaultCPUAllocator", "not enough memory", "can't allocate memory")  # it has no error type of its own


def is_full(error: RuntimeError) -> bool:
    """Whether the error is of a full memory, a GPU's or the main one."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _ON_CPU)
