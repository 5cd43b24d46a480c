"""Loads files of tensors from anywhere without running anything that they hold."""

import struct
import warnings
from pathlib import Path
from pickle import UnpicklingError  # the type of error alone: nothing is unpickled outside torch's safe loader
from typing import Any

import torch

# what torch's loader raises on damaged and hostile files, found by fuzzing it
_DAMAGE: tuple[type[Exception], ...] = (
    *(OSError, RuntimeError, EOFError, LookupError, TypeError, AttributeError, ValueError, ArithmeticError),
    *(AssertionError, ImportError, MemoryError, BufferError, UnpicklingError, struct.error),
)


def read_tensor_file(path: Path) -> Any:
    """The tensors and plain values of a torch.save file, on the CPU.

    Raises:
        ValueError: the file is missing, damaged, or holds anything but tensors and plain values.
    """
    try:
        with warnings.catch_warnings():  # torch's advice about unusual files; what matters is whether they load
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError("there is no such file") from error
    except _DAMAGE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise ValueError(reason) from error
