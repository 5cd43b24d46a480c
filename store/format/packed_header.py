"""The header of a packed store: one line of text, then STORE.json, padded so that an HDF5 file can follow.

It describes the store without HDF5, and contains the sha256 of every byte after the first line.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from configs.errors import AccessError, IntegrityError, StoreError
from configs.read_file import PACKED_BYTES, is_no_access, open_file, read_file
from store.files import Bytes
from store.format.layout import pad_header

_MAGIC = b"stage2 packed store "
_FIRST_LINE = re.compile(_MAGIC + rb"1 ([0-9]{8}) ([0-9a-f]{64})\n")  # size of the header, sha256 of the rest
_FIRST_LINE_LENGTH = len("stage2 packed store 1 00000512 ") + 64 + 1
_LARGEST = 2**26  # bytes of the header; the STORE.json of 100,000 units is smaller
PACK_AGAIN = "pack it again from its folder, or copy it again"


@dataclass(frozen=True)
class Header:
    """The first line and STORE.json."""

    size: int  # bytes of the header; the HDF5 file starts here
    sha256: str  # of every byte after the first line
    text: bytes  # of STORE.json


def make_header(text: bytes, body: Iterable[Bytes]) -> bytes:
    """The header of a packed store with the STORE.json `text` and the HDF5 file `body`, which is given in pieces."""
    block = pad_header(text, _FIRST_LINE_LENGTH)
    total = hashlib.sha256(block)
    for piece in body:
        total.update(piece)
    size = _FIRST_LINE_LENGTH + len(block)
    return f"stage2 packed store 1 {size:08d} {total.hexdigest()}\n".encode() + block


def read_header(path: Path) -> Header:
    """The header of the packed store in file `path`; reads nothing else.

    Raises:
        StoreError: the file is not a packed store.
        IntegrityError: the file is too short, or its header is damaged. AccessError: it may not be read.
    """
    try:
        with open_file(path) as file:
            first = _FIRST_LINE.fullmatch(file.read(_FIRST_LINE_LENGTH))
            size = int(first[1]) if first else 0
            block = file.read(max(0, min(size, _LARGEST) - _FIRST_LINE_LENGTH))
    except OSError as error:
        raise _unreadable(path, error) from error
    if first is None:
        raise StoreError(f"{path} is not a feature store: neither a folder with STORE.json nor a packed store")
    if size < 512 or size & (size - 1) or len(block) != size - _FIRST_LINE_LENGTH:
        raise IntegrityError(f"{path} is damaged: its header is incomplete; {PACK_AGAIN}")
    return Header(size, first[2].decode(), block.rstrip(b"\0"))


def has_packed_header(path: Path) -> bool:
    """Whether the file `path` starts like a packed store, damaged or not. Raises as `read_header`."""
    try:
        with open_file(path) as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError as error:
        raise _unreadable(path, error) from error


def read_checked(path: Path) -> bytes:
    """All bytes of a packed store, checked against its sha256. Raises as `read_header`."""
    header = read_header(path)
    try:
        data = read_file(path, max_bytes=PACKED_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from error
    if hashlib.sha256(memoryview(data)[_FIRST_LINE_LENGTH:]).hexdigest() != header.sha256:
        raise IntegrityError(f"{path} does not match its checksum; {PACK_AGAIN}")
    return data


def packed_is_intact(path: Path) -> bool:
    """Whether a packed store matches its checksum; reads it block by block. Raises as `read_header`."""
    header = read_header(path)
    try:
        with open_file(path) as file:
            file.seek(_FIRST_LINE_LENGTH)
            return hashlib.file_digest(file, "sha256").hexdigest() == header.sha256
    except OSError as error:
        if is_no_access(error):
            raise _unreadable(path, error) from error
        return False  # the disk fails


def _unreadable(path: Path, error: OSError) -> StoreError:
    if is_no_access(error):
        return AccessError(f"{path} may not be read ({error}); it was left as it is: check its permissions")
    return IntegrityError(f"{path} cannot be read ({error}); {PACK_AGAIN}")
