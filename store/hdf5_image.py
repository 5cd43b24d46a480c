"""Looks into the bytes of an HDF5 file, with as few calls of the library as will do: a store has thousands of them.

Only plain contiguous datasets of the file itself are taken, as views of its bytes, and only attributes of text.
"""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from h5py import h5a, h5d, h5f, h5fd, h5l, h5p, h5t
from numpy.typing import NDArray

_NUMBERS = (
    (h5t.IEEE_F16LE, np.dtype("<f2")),
    (h5t.IEEE_F32LE, np.dtype("<f4")),
    (h5t.IEEE_F64LE, np.dtype("<f8")),
    (h5t.STD_I32LE, np.dtype("<i4")),
    (h5t.STD_I64LE, np.dtype("<i8")),
)


@contextmanager
def open_image(image: bytes) -> Iterator[h5f.FileID]:
    """The file whose bytes are `image`, for reading. Raises OSError where they are no HDF5 file."""
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_fileobj_driver(h5fd.fileobj_driver, io.BytesIO(image))
    access.set_fclose_degree(h5f.CLOSE_STRONG)  # with all that is still open in it
    file = h5f.open(b"image", h5f.ACC_RDONLY, fapl=access)
    try:
        yield file
    finally:
        file.close()


def has(file: h5f.FileID, key: str) -> bool:
    """Whether the file has a link of that name."""
    return bool(file.links.exists(key.encode()))


def stored_array(file: h5f.FileID, key: str, kind: str, rank: int, image: bytes) -> NDArray[Any]:
    """Dataset `key`, of dtype kind `kind` and `rank` dimensions, as a read-only view of `image`.

    Raises:
        ValueError: there is no such dataset, or it is not stored in one piece here.
        OSError, RuntimeError, TypeError: the file is damaged.
    """
    dataset = _dataset(file, key)
    offset = dataset.get_offset()
    if offset is None:  # nothing is stored, or not in one piece; asked before the shape, for which a virtual dataset
        plist = dataset.get_create_plist()  # would open other files
        if plist.get_layout() != h5d.CONTIGUOUS or plist.get_external_count():
            raise ValueError(f"{key} is not stored in one piece in this file")
    dtype, shape = _dtype(dataset, key), dataset.shape
    if dtype.kind != kind or len(shape) != rank:
        raise ValueError(f"{key} has type {dtype} and rank {len(shape)}")
    count = math.prod(shape)
    if count == 0:
        return np.empty(shape, dtype)
    if offset is None or offset + count * dtype.itemsize > len(image):
        raise ValueError(f"{key} is declared and not stored")
    return np.frombuffer(image, dtype, count, offset).reshape(shape)


def text_attributes(file: h5f.FileID) -> dict[str, str]:
    """The attributes of the file's root. Raises ValueError where one is no text, OSError or RuntimeError if damaged."""
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


def _dtype(dataset: h5d.DatasetID, key: str) -> np.dtype[Any]:
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
