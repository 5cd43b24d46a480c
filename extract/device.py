"""The device that a name means on this machine."""

import torch

from configs.errors import DeviceError


def pick_device(name: str) -> torch.device:
    """ "auto" is CUDA where there is one, else the CPU. Raises DeviceError where CUDA is asked for and missing."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise DeviceError("there is no CUDA device on this machine; use --device auto or --device cpu")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and available) else "cpu")
