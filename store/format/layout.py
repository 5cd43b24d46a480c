"""Finds the arrays in an HDF5 file's bytes, by HDF5 or, much faster, by a header in front of the file.

Accepts only contiguous datasets that lie in the file itself, and only text attributes: a file from elsewhere must not
make the reader open other files.
"""

import json
import math
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
from h5py import h5a, h5d, h5f, h5fd, h5l, h5p, h5t
from numpy.typing import NDArray


@dataclass(frozen=True)
class ArrayLocation:
    """Type, shape and position of one contiguous array in a file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int | None  # of the first byte; None if nothing is stored

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class FileLayout:
    """The arrays and attributes of an HDF5 file."""

    arrays: dict[str, ArrayLocation]
    attributes: dict[str, str]


def array_view(image: bytes, key: str, location: ArrayLocation, kinds: str, rank: int) -> NDArray[Any]:
    """The array `key` as a read-only view of the file's bytes `image`.

    Raises:
        ValueError: its numpy kind is not in `kinds`, its rank is not `rank`, or `image` ends before it does.
    """
    dtype, shape, offset = location.dtype, location.shape, location.offset
    if dtype.kind not in kinds or len(shape) != rank:
        raise ValueError(f"{key} has type {dtype} and rank {len(shape)}")
    count = math.prod(shape)
    if count == 0:
        return np.empty(shape, dtype)
    if offset is None or offset + location.size > len(image):
        raise ValueError(f"{key} is declared but not stored")
    return np.frombuffer(image, dtype, count, offset).reshape(shape)


def read_array(file: BinaryIO, key: str, location: ArrayLocation, kinds: str, rank: int) -> NDArray[Any]:
    """The array `key`, read from an open file. Raises ValueError as `array_view`."""
    check_stored(file, key, location)
    data = os.pread(file.fileno(), location.size, location.offset or 0)
    return array_view(data, key, replace(location, offset=0), kinds, rank)


def check_stored(file: BinaryIO, key: str, location: ArrayLocation) -> None:
    """Raises ValueError if the file ends before the array `key` does."""
    size, offset = location.size, location.offset
    if size and (offset is None or offset + size > os.fstat(file.fileno()).st_size):
        raise ValueError(f"{key} is declared but not stored")


_NUMBER_TYPES = (
    (h5t.IEEE_F16LE, np.dtype("<f2")),
    (h5t.IEEE_F32LE, np.dtype("<f4")),
    (h5t.IEEE_F64LE, np.dtype("<f8")),
    (h5t.STD_U8LE, np.dtype("|u1")),
    (h5t.STD_I32LE, np.dtype("<i4")),
    (h5t.STD_I64LE, np.dtype("<i8")),
)


def hdf5_layout(content: BinaryIO, keys: Collection[str]) -> FileLayout:
    """The root attributes of an HDF5 file, and the locations of those of its datasets that are named in `keys`.

    Raises:
        ValueError: a dataset is not contiguous in this file, or an attribute is not text.
        OSError, RuntimeError, TypeError: the file is damaged or not an HDF5 file.
    """
    with _open_hdf5(content) as file:
        arrays = {key: _location(file, key) for key in keys if file.links.exists(key.encode())}
        return FileLayout(arrays, _attributes(file))


@contextmanager
def _open_hdf5(content: BinaryIO) -> Iterator[h5f.FileID]:
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fileobj_driver(h5fd.fileobj_driver, content)
    access.set_fclose_degree(h5f.CLOSE_STRONG)  # also closes its datasets that are still open
    file = h5f.open(b"image", h5f.ACC_RDONLY, fapl=access)
    try:
        yield file
    finally:
        file.close()


def _location(file: h5f.FileID, key: str) -> ArrayLocation:
    dataset = _open_dataset(file, key)
    offset = dataset.get_offset()
    if offset is None:  # empty or not contiguous; must be checked before the shape is read, which makes HDF5 open
        plist = dataset.get_create_plist()  # the source files of a virtual dataset
        if plist.get_layout() != h5d.CONTIGUOUS or plist.get_external_count():
            raise ValueError(f"{key} is not stored contiguously in this file")
    return ArrayLocation(_dtype(dataset, key), dataset.shape, offset)


def _attributes(file: h5f.FileID) -> dict[str, str]:
    attributes = [h5a.open(file, index=index) for index in range(h5a.get_num_attrs(file))]
    return {attribute.name.decode(): _attribute_text(attribute) for attribute in attributes}


def _open_dataset(file: h5f.FileID, key: str) -> h5d.DatasetID:
    link = key.encode()
    try:
        # the link's type is checked first, because opening a soft or external link would follow it into another file
        is_hard = file.links.get_info(link).type == h5l.TYPE_HARD
        dataset = h5d.open(file, link) if is_hard else None
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{key} cannot be opened: {error}") from error
    if dataset is None:
        raise ValueError(f"{key} is a link, not a dataset of this file")
    return dataset


def _dtype(dataset: h5d.DatasetID, key: str) -> "np.dtype[np.generic]":
    stored = dataset.get_type()
    for known, dtype in _NUMBER_TYPES:
        if stored == known:
            return dtype
    if isinstance(stored, h5t.TypeStringID) and not stored.is_variable_str():
        return np.dtype(("S", stored.get_size()))
    raise ValueError(f"{key} has a type that stores do not use")


def _attribute_text(attribute: h5a.AttrID) -> str:
    stored = attribute.get_type()
    if attribute.shape != () or not isinstance(stored, h5t.TypeStringID) or not stored.is_variable_str():
        raise ValueError(f"an attribute is {stored} instead of text")
    value = np.empty((), object)
    attribute.read(value)
    return bytes(value[()]).decode()


_FIRST_LINE = re.compile(rb"stage2 shard 1 ([0-9]{8})\n")  # the header's size in bytes; the HDF5 file follows it
_FIRST_LINE_LENGTH = len("stage2 shard 1 00000512\n")
_DTYPE = re.compile(r"<f[248]|<i[48]|\|u1|\|S[1-9][0-9]{0,6}")


def pad_header(text: bytes, first_line: int) -> bytes:
    """`text`, padded with zeros for a header whose first line has `first_line` bytes.

    HDF5 allows such a block in front of a file if its size is 512 bytes or a power of two above.
    """
    size = 512
    while size < first_line + len(text):
        size *= 2
    return text.ljust(size - first_line, b"\0")


def make_header(layout: FileLayout) -> bytes:
    """The header for an HDF5 file with this layout: a line with the header's size, then padded JSON."""
    arrays = {key: [place.dtype.str, place.shape, place.offset] for key, place in layout.arrays.items()}
    text = json.dumps({"arrays": arrays, "attributes": layout.attributes}, sort_keys=True).encode()
    block = pad_header(text, _FIRST_LINE_LENGTH)
    return f"stage2 shard 1 {_FIRST_LINE_LENGTH + len(block):08d}\n".encode() + block


def parse_header(image: bytes) -> FileLayout | None:
    """The layout in the header of `image`, with offsets from the first byte of `image`; None without a header.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, RecursionError: the header is damaged.
    """
    first = _FIRST_LINE.match(image)
    if first is None:
        return None
    size = int(first[1])
    values = json.loads(image[_FIRST_LINE_LENGTH:size].rstrip(b"\0"))
    attributes = values["attributes"]
    for text in attributes.values():
        text.encode()  # raises for lone surrogates, which JSON allows
    return FileLayout({key: _parse_location(key, entry, size) for key, entry in values["arrays"].items()}, attributes)


def _parse_location(key: str, entry: list[Any], start: int) -> ArrayLocation:
    dtype, shape, offset = entry
    counts = [*shape] if offset is None else [*shape, offset]
    if not _DTYPE.fullmatch(dtype) or not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError(f"{key} has an invalid type, shape or offset in the header")
    return ArrayLocation(np.dtype(dtype), tuple(shape), None if offset is None else start + offset)
