"""What an image file says of itself, before anything is decoded."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_PNG = b"\x89PNG\r\n\x1a\n"
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_START_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class ImageHeader:
    """Kind ("jpeg" or "png") and size in pixels, as declared."""

    kind: str
    width: int
    height: int


def read_header(data: bytes) -> ImageHeader | None:
    """The header of a JPEG or PNG file's bytes; None where they are neither. (JPEG: ITU T.81 B.2; PNG: RFC 2083.)"""
    if data[:8] == _PNG and data[12:16] == b"IHDR" and len(data) >= 24:
        return ImageHeader("png", *struct.unpack(">II", data[16:24]))
    return _jpeg(data) if data[:3] == b"\xff\xd8\xff" else None


def _jpeg(data: bytes) -> ImageHeader | None:
    """Walks the segments up to the start of frame."""
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        elif marker in _START_OF_FRAME:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return ImageHeader("jpeg", width, height)
        else:
            at += 2 + int(struct.unpack(">H", data[at + 2 : at + 4])[0])
    return None


_PROGRESSIVE = b"\xff\xc2"  # its start of frame (ITU T.81, table B.1); elsewhere in the header it does no harm
_GREY = 128
_CORNER = 8  # pixels: one block
_LAST_BYTES = 16  # of picture data; a grey block of 16 x 16 pixels takes 4
_LAST_ROWS = 32  # pixels that the last bytes of a whole file may reach


def ends_early(data: bytes, pixels: Tensor, decode: Callable[[bytes], Tensor]) -> bool:
    """Whether more than the last rows of `pixels` (3, H, W), decoded from `data` by `decode`, are filled up.

    A second decoding is done only where the last corner is exactly grey. Progressive files, whose last bytes refine the
    whole picture, are taken as they are. Damage inside the data that leaves it as long
    as it was is not found by this.
    """
    end = data.rfind(b"\xff\xd9")
    progressive = _PROGRESSIVE in data[: data.find(b"\xff\xda")]
    if progressive or end < _LAST_BYTES or not bool((pixels[:, -_CORNER:, -_CORNER:] == _GREY).all()):
        return False
    shorter = decode(data[: end - _LAST_BYTES].rstrip(b"\xff") + b"\xff\xd9")
    return not torch.equal(shorter[:, :-_LAST_ROWS], pixels[:, :-_LAST_ROWS])


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
