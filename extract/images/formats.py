"""JPEG and PNG: sizes from the header, decoding, and detection of truncated JPEG files."""

import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode

_PNG = b"\x89PNG\r\n\x1a\n"
_MARKERS_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_START_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class ImageHeader:
    """An image's format ("jpeg" or "png") and its size in pixels, as the header states them."""

    kind: str
    width: int
    height: int


def read_header(data: bytes) -> ImageHeader | None:
    """Reads the header of a JPEG (ITU T.81 B.2) or PNG (RFC 2083) file; returns None for other data."""
    if data[:8] == _PNG and data[12:16] == b"IHDR" and len(data) >= 24:
        return ImageHeader("png", *struct.unpack(">II", data[16:24]))
    return _read_jpeg_header(data) if data[:3] == b"\xff\xd8\xff" else None


def _read_jpeg_header(data: bytes) -> ImageHeader | None:
    """Skips segments up to the start of frame, which contains the size."""
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _MARKERS_WITHOUT_LENGTH:
            at += 2
        elif marker in _START_OF_FRAME:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return ImageHeader("jpeg", width, height)
        else:
            at += 2 + int(struct.unpack(">H", data[at + 2 : at + 4])[0])
    return None


def is_16_bit_png(data: bytes) -> bool:
    """Whether a PNG file has 16 bits per channel (RFC 2083, 4.1.1)."""
    return data[24:25] == b"\x10"


def decode_png(data: bytes) -> Tensor:
    """Decodes to (3, H, W) uint8 RGB, stored as HWC. Drops transparency; of an animation, returns the first picture.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
            opaque = image.convert("RGBA") if "transparency" in image.info else image
            pixels = np.array(opaque.convert("RGB"))
    except (OSError, SyntaxError, ValueError, EOFError, zlib.error, Image.DecompressionBombError) as error:
        raise ValueError(str(error)) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def decode_jpeg(data: bytes) -> Tensor:
    """Decodes to (3, H, W) uint8 RGB, stored as HWC; a truncated file is filled with grey. Raises RuntimeError."""
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    pixels: Tensor = torchvision.io.decode_jpeg(encoded, mode=ImageReadMode.RGB)
    return pixels


# the marker of progressive files (ITU T.81, table B.1); a false match in other header segments only skips the check
_PROGRESSIVE = b"\xff\xc2"
_GREY = 128
_CORNER = 8  # pixels: one block
_LAST_BYTES = 16  # of image data; a grey block of 16 x 16 pixels takes 4
_LAST_ROWS = 32  # pixel rows that the last bytes of a complete file may change


def is_truncated_jpeg(data: bytes, pixels: Tensor) -> bool:
    """Whether the decoder filled more than the last rows of `pixels` (3, H, W) with grey because `data` ends early.

    Decodes a second time without the last bytes, but only if the bottom right corner is exactly grey. Progressive
    files are not checked: their last bytes change the whole image. Damage that keeps the file's length is not detected.
    """
    end = data.rfind(b"\xff\xd9")
    progressive = _PROGRESSIVE in data[: data.find(b"\xff\xda")]
    if progressive or end < _LAST_BYTES or not bool((pixels[:, -_CORNER:, -_CORNER:] == _GREY).all()):
        return False
    shorter = decode_jpeg(data[: end - _LAST_BYTES].rstrip(b"\xff") + b"\xff\xd9")
    return not torch.equal(shorter[:, :-_LAST_ROWS], pixels[:, :-_LAST_ROWS])
