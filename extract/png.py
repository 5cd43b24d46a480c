"""PNG files by Pillow, which torchvision brings along: torchvision's own decoder can crash on a damaged one.

Seen with torchvision 0.29: a damaged IDAT chunk ends the process with SIGSEGV, and a palette with transparency is
written past the end of its buffer (reported for torchcodec, which has the same code).
"""

import io
import zlib

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def is_16_bit(data: bytes) -> bool:
    """Whether a PNG file has 16 bits a channel (RFC 2083, 4.1.1)."""
    return data[24:25] == b"\x10"


def decode_png(data: bytes) -> Tensor:
    """(3, H, W) uint8 RGB, stored HWC; transparency is dropped, an animation shows its first picture.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
            whole = image.convert("RGBA") if "transparency" in image.info else image
            pixels = np.array(whole.convert("RGB"))
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)
