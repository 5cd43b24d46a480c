"""Where the datasets of an HDF5 file lie in its bytes, by as few calls of the library as will do.

Only plain contiguous datasets of the file itself are taken, and only attributes of text.
"""

import json
import math
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from h5py import h5a, h5d, h5f, h5fd, h5l, h5p, h5t
from numpy.typing import NDArray


@dataclass(frozen=True)
class Place:
    """One array, in one piece."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int | None  # of its first byte; None where nothing is stored


@dataclass(frozen=True)
class Places:
    """The arrays and the attributes of a shard."""

    arrays: dict[str, Place]
    attributes: dict[str, str]


def view(image: bytes, key: str, place: Place, kinds: str, rank: int) -> NDArray[Any]:
    """The array `key` as a read-only view of `image`.

    Raises:
        ValueError: it is not of one of those kinds of number and that rank, or not all of it is there.
    """
    dtype, shape, offset = place.dtype, place.shape, place.offset
    if dtype.kind not in kinds or len(shape) != rank:
        raise ValueError(f"{key} has type {dtype} and rank {len(shape)}")
    count = math.prod(shape)
    if count == 0:
        return np.empty(shape, dtype)
    if offset is None or offset + count * dtype.itemsize > len(image):
        raise ValueError(f"{key} is declared and not stored")
    return np.frombuffer(image, dtype, count, offset).reshape(shape)


_NUMBERS = (
    (h5t.IEEE_F16LE, np.dtype("<f2")),
    (h5t.IEEE_F32LE, np.dtype("<f4")),
    (h5t.IEEE_F64LE, np.dtype("<f8")),
    (h5t.STD_U8LE, np.dtype("|u1")),
    (h5t.STD_I32LE, np.dtype("<i4")),
    (h5t.STD_I64LE, np.dtype("<i8")),
)


def locate(content: BinaryIO, keys: Collection[str]) -> Places:
    """Where in an HDF5 file those of its datasets lie whose names are among `keys`; the attributes of its root.

    Raises:
        ValueError: one is not stored in one piece in this file, or an attribute is no text.
        OSError, RuntimeError, TypeError: the file is damaged, or no HDF5 file.
    """
    with _opened(content) as file:
        arrays = {key: _place(file, key) for key in keys if file.links.exists(key.encode())}
        return Places(arrays, _attributes(file))


@contextmanager
def _opened(content: BinaryIO) -> Iterator[h5f.FileID]:
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fileobj_driver(h5fd.fileobj_driver, content)
    access.set_fclose_degree(h5f.CLOSE_STRONG)  # with all that is still open in it
    file = h5f.open(b"image", h5f.ACC_RDONLY, fapl=access)
    try:
        yield file
    finally:
        file.close()


def _place(file: h5f.FileID, key: str) -> Place:
    dataset = _dataset(file, key)
    offset = dataset.get_offset()
    if offset is None:  # nothing is stored, or not in one piece; asked before the shape, for which a virtual dataset
        plist = dataset.get_create_plist()  # would open other files
        if plist.get_layout() != h5d.CONTIGUOUS or plist.get_external_count():
            raise ValueError(f"{key} is not stored in one piece in this file")
    return Place(_dtype(dataset, key), dataset.shape, offset)


def _attributes(file: h5f.FileID) -> dict[str, str]:
    attributes = [h5a.open(file, index=index) for index in range(h5a.get_num_attrs(file))]
    return {attribute.name.decode(): _text(attribute) for attribute in attributes}


def _dataset(file: h5f.FileID, key: str) -> h5d.DatasetID:
    link = key.encode()
    try:
        # by the link itself: opening the name would follow it into another file
        hard = file.links.get_info(link).type == h5l.TYPE_HARD
        found = h5d.open(file, link) if hard else None
    except (KeyError, RuntimeError) as error:
        raise ValueError(f"{key} cannot be opened: {error}") from error
    if found is None:
        raise ValueError(f"{key} is no dataset of this file")
    return found


def _dtype(dataset: h5d.DatasetID, key: str) -> "np.dtype[np.generic]":
    stored = dataset.get_type()
    for known, dtype in _NUMBERS:
        if stored == known:
            return dtype
    if isinstance(stored, h5t.TypeStringID) and not stored.is_variable_str():
        return np.dtype(("S", stored.get_size()))
    raise ValueError(f"{key} has a type that no store has")


def _text(attribute: h5a.AttrID) -> str:
    stored = attribute.get_type()
    if attribute.shape != () or not isinstance(stored, h5t.TypeStringID) or not stored.is_variable_str():
        raise ValueError(f"an attribute is {stored} instead of text")
    value = np.empty((), object)
    attribute.read(value)
    return bytes(value[()]).decode()


_FIRST = re.compile(rb"stage2 shard 1 ([0-9]{8})\n")  # bytes of the block; HDF5 begins there
_LENGTH = len("stage2 shard 1 00000512\n")
_TYPE = re.compile(r"<f[248]|<i[48]|\|u1|\|S[1-9][0-9]{0,6}")


def header_of(places: Places) -> bytes:
    """The block for a file whose arrays lie at `places`."""
    arrays = {key: [place.dtype.str, place.shape, place.offset] for key, place in places.arrays.items()}
    text = json.dumps({"arrays": arrays, "attributes": places.attributes}, sort_keys=True).encode()
    size = 512
    while size < _LENGTH + len(text):
        size *= 2
    return f"stage2 shard 1 {size:08d}\n".encode() + text.ljust(size - _LENGTH, b"\0")


def read_header(image: bytes) -> Places | None:
    """What the block at the start of `image` says, offsets from its first byte; None where there is no such block.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, RecursionError: the block is not as `header_of` makes it.
    """
    first = _FIRST.match(image)
    if first is None:
        return None
    size = int(first[1])
    values = json.loads(image[_LENGTH:size].rstrip(b"\0"))
    attributes = values["attributes"]
    for text in attributes.values():
        text.encode()  # lone surrogates are no text either
    return Places({key: _header_place(key, entry, size) for key, entry in values["arrays"].items()}, attributes)


def _header_place(key: str, entry: list[Any], start: int) -> Place:
    dtype, shape, offset = entry
    counts = [*shape] if offset is None else [*shape, offset]
    if not _TYPE.fullmatch(dtype) or not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError(f"{key} is described as nothing that a store has")
    return Place(np.dtype(dtype), tuple(shape), None if offset is None else start + offset)
