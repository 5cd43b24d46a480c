"""Reads image files safely: only regular files inside the dataset, with limits on bytes and pixels, fully decoded."""

import os
import re
from pathlib import Path

from torch import Tensor

from configs.errors import DataError
from configs.read_file import open_file
from extract.device import is_out_of_memory
from extract.images.formats import (
    ImageHeader,
    decode_jpeg,
    decode_png,
    is_16_bit_png,
    is_truncated_jpeg,
    read_header,
)

_PLACE_IN_TORCHVISION = re.compile(r"^\w+, \S+:\d+, ")  # in front of its messages

MAX_PIXELS = 88_000_000
MAX_BYTES = 512 * 2**20


class FrameError(DataError):
    """A frame's image cannot be used; `reason` is the short name stored with skipped frames."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def read_frame(path: Path, root: Path | None = None) -> Tensor:
    """Reads an image file as (3, H, W) uint8 RGB. EXIF rotation is ignored, because boxes refer to the stored pixels.

    Raises:
        FrameError: image_missing, image_not_a_file, image_outside, image_empty, image_format, image_too_large or
            image_damaged.
    """
    return decode_frame(read_image_bytes(path, root), path)


def read_image_bytes(path: Path, root: Path | None = None) -> bytes:
    """Reads a regular file. With `root`, refuses paths that lead out of that folder by links. Raises FrameError."""
    if root is not None and not _is_inside(path, root):
        raise FrameError("image_outside", f"{path} leads out of {root}")
    try:
        file = open_file(path)
    except FileNotFoundError as error:
        raise FrameError("image_missing", f"{path} does not exist") from error
    except OSError as error:
        raise FrameError("image_not_a_file", f"{path} cannot be opened ({error})") from error
    with file:
        try:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise FrameError("image_too_large", f"{path} has {size} bytes")
            return file.read()
        except OSError as error:
            raise FrameError("image_damaged", f"{path} cannot be read ({error})") from error


def _is_inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # NUL or a lone surrogate in the name; a loop of links
        raise FrameError("image_not_a_file", f"{str(path)!a} cannot be opened ({error})") from error


def check_header(data: bytes, path: Path) -> ImageHeader:
    """Returns the header of an image that is safe to decode. Raises FrameError."""
    if not data:
        raise FrameError("image_empty", f"{path} is empty")
    header = read_header(data)
    if header is None:
        raise FrameError("image_format", f"{path} is neither JPEG nor PNG")
    if header.kind == "png" and is_16_bit_png(data):
        raise FrameError("image_format", f"{path} has 16 bits per channel instead of 8")
    if not 0 < header.width * header.height <= MAX_PIXELS:
        raise FrameError("image_too_large", f"{path} declares {header.width} x {header.height} pixels")
    return header


def decode_frame(data: bytes, path: Path) -> Tensor:
    """Decodes an image file's bytes to (3, H, W) uint8 RGB. Raises FrameError, or RuntimeError if memory is full."""
    header = check_header(data, path)
    try:
        pixels = decode_png(data) if header.kind == "png" else decode_jpeg(data)
        if header.kind == "jpeg" and is_truncated_jpeg(data, pixels):
            raise ValueError("its data ends early")
    except (RuntimeError, ValueError) as error:
        if is_out_of_memory(error):  # not the image's fault: it must not be skipped as damaged
            raise
        reason = _PLACE_IN_TORCHVISION.sub("", (str(error).splitlines() or ["no reason given"])[0])
        raise FrameError("image_damaged", f"{path} cannot be decoded ({reason})") from error
    if pixels.shape != (3, header.height, header.width):
        raise FrameError("image_damaged", f"{path} has another size than its header states")
    return pixels
