"""Reads a frame's image safely: a regular file under its root, small enough, decoded whole."""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from configs.errors import DataError
from extract.device import is_full
from extract.images.formats import ImageHeader, decode_png, ends_early, is_16_bit, read_header

MAX_PIXELS = 88_000_000
MAX_BYTES = 512 * 2**20


class FrameError(DataError):
    """A frame's image cannot be used; `reason` is its name in the tables of what was skipped."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Frame:
    """A decoded panorama."""

    pixels: Tensor  # (3, H, W) uint8 RGB, [0, 255]; stored HWC
    sha256: str  # of the file


def read_frame(path: Path, root: Path | None = None) -> Tensor:
    """The pixels of an image file, (3, H, W) uint8 RGB; EXIF rotation is ignored, as the boxes ignore it.

    Raises:
        FrameError: image_missing, image_not_a_file, image_outside, image_empty, image_format, image_too_large or
            image_damaged.
    """
    return decode_frame(read_image_bytes(path, root), path)


def read_image_bytes(path: Path, root: Path | None = None) -> bytes:
    """The bytes of a regular file; with `root`, one that no link takes out of that folder. Raises FrameError."""
    if root is not None and not _is_inside(path, root):
        raise FrameError("image_outside", f"{path} leads out of {root}")
    try:
        # a FIFO must not block the job
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise FrameError("image_missing", f"{path} does not exist") from error
    except (OSError, ValueError) as error:
        raise FrameError("image_not_a_file", f"{path} cannot be opened ({error})") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FrameError("image_not_a_file", f"{path} is no regular file")
        if status.st_size > MAX_BYTES:
            raise FrameError("image_too_large", f"{path} has {status.st_size} bytes")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read()
    except OSError as error:
        raise FrameError("image_damaged", f"{path} cannot be read ({error})") from error
    finally:
        os.close(descriptor)


def _is_inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # NUL or a lone surrogate in the name; a loop of links
        raise FrameError("image_not_a_file", f"{str(path)!a} cannot be opened ({error})") from error


def check_header(data: bytes, path: Path) -> ImageHeader:
    """The header of an image that may be decoded. Raises FrameError."""
    if not data:
        raise FrameError("image_empty", f"{path} is empty")
    header = read_header(data)
    if header is None:
        raise FrameError("image_format", f"{path} is neither JPEG nor PNG")
    if header.kind == "png" and is_16_bit(data):
        raise FrameError("image_format", f"{path} has 16 bits a channel, not 8")
    if not 0 < header.width * header.height <= MAX_PIXELS:
        raise FrameError("image_too_large", f"{path} declares {header.width} x {header.height} pixels")
    return header


def decode_frame(data: bytes, path: Path) -> Tensor:
    """(3, H, W) uint8 RGB of an image file's bytes. Raises FrameError, or RuntimeError where the memory is full."""
    header = check_header(data, path)
    try:
        pixels = decode_png(data) if header.kind == "png" else _decode_jpeg(data)
        if header.kind == "jpeg" and ends_early(data, pixels, _decode_jpeg):
            raise ValueError("its data ends early")
    except (RuntimeError, ValueError) as error:
        if is_full(error):  # which is not the image's fault
            raise
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise FrameError("image_damaged", f"{path} cannot be decoded ({reason})") from error
    if pixels.shape != (3, header.height, header.width):
        raise FrameError("image_damaged", f"{path} contradicts its own header")
    return pixels


def _decode_jpeg(data: bytes) -> Tensor:
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    pixels: Tensor = decode_jpeg(encoded, mode=ImageReadMode.RGB)
    return pixels


def load_frame(path: Path, root: Path) -> Frame:
    """A frame's pixels with the checksum of its file. Raises FrameError."""
    data = read_image_bytes(path, root)
    return Frame(decode_frame(data, path), hashlib.sha256(data).hexdigest())


def frame_size(path: Path, root: Path) -> tuple[int, int]:
    """Width and height in pixels, from the header alone. Raises FrameError."""
    header = check_header(read_image_bytes(path, root), path)
    return header.width, header.height
