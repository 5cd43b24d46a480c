"""Where the datasets of an HDF5 file lie in its bytes, by as few calls of the library as will do.

Only plain contiguous datasets of the file itself are taken, and only attributes of text.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from h5py import h5a, h5d, h5f, h5fd, h5l, h5p, h5t

from store.place import Place, Places

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
