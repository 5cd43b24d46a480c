"""How a packed store begins: one line of text, then STORE.json, padded so that an HDF5 file can follow.

HDF5 allows a block of the user's own before its first byte, of 512 bytes or a power of two above. Ours holds what the
store is, readable without HDF5, and the sha256 of every byte after the first line.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from configs.errors import IntegrityError, StoreError
from store.files import Bytes

_MAGIC = b"stage2 packed store "
_FIRST = re.compile(_MAGIC + rb"1 ([0-9]{8}) ([0-9a-f]{64})\n")  # bytes of the block, sha256 of the rest
_LENGTH = len("stage2 packed store 1 00000512 ") + 64 + 1
_LARGEST = 2**26  # bytes of block; a STORE.json of 100,000 units has less
REMEDY = "pack it again from its folder, or copy it again"


@dataclass(frozen=True)
class Header:
    """The first line and the block."""

    size: int  # bytes of the whole block; HDF5 begins here
    sha256: str  # of every byte after the first line
    text: bytes  # of STORE.json


def header_of(text: bytes, body: Iterable[Bytes]) -> bytes:
    """What stands before the HDF5 file of a packed store, whose bytes are the pieces `body`: first line and block.

    The block holds STORE.json's `text`.
    """
    size = 512
    while size < _LENGTH + len(text):
        size *= 2
    block = text.ljust(size - _LENGTH, b"\0")
    total = hashlib.sha256(block)
    for piece in body:
        total.update(piece)
    return f"stage2 packed store 1 {size:08d} {total.hexdigest()}\n".encode() + block


def read_header(path: Path) -> Header:
    """The header of the packed store in file `path`; of the rest nothing is read.

    Raises:
        StoreError: the file is no packed store. IntegrityError: it ends early, or its header is damaged.
    """
    try:
        with path.open("rb") as file:
            found = _FIRST.fullmatch(file.read(_LENGTH))
            size = int(found[1]) if found else 0
            block = file.read(max(0, min(size, _LARGEST) - _LENGTH))
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read ({error}); {REMEDY}") from error
    if found is None:
        raise StoreError(f"{path} is no feature store: neither a folder with STORE.json nor a packed store")
    if size < 512 or size & (size - 1) or len(block) != size - _LENGTH:
        raise IntegrityError(f"{path} is damaged: its header is not whole; {REMEDY}")
    return Header(size, found[2].decode(), block.rstrip(b"\0"))


def is_packed(path: Path) -> bool:
    """Whether `path` is a regular file that calls itself a packed store, damaged or not."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def read_whole(path: Path) -> tuple[Header, bytes]:
    """The header and all bytes of a packed store, checked against its sha256. Raises as `read_header`."""
    header = read_header(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read ({error}); {REMEDY}") from error
    if hashlib.sha256(memoryview(data)[_LENGTH:]).hexdigest() != header.sha256:
        raise IntegrityError(f"{path} does not match its checksum; {REMEDY}")
    return header, data


def whole(path: Path) -> bool:
    """Whether a packed store matches its checksum; reads it in pieces. Raises as `read_header`."""
    header = read_header(path)
    try:
        with path.open("rb") as file:
            file.seek(_LENGTH)
            return hashlib.file_digest(file, "sha256").hexdigest() == header.sha256
    except OSError:  # what a disk does not give back is not there
        return False
