"""What an image file says of itself, before anything is decoded."""

import struct
from dataclasses import dataclass

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
