"""The HDF5 file inside a packed store, written and read without ever holding its features in memory.

HDF5 lays the file out in memory, with room for the features and none of their bytes; the file itself is then written
by us, so that a full disk is an error and not the death of the process.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import h5py
import numpy as np

from configs.errors import IntegrityError
from store.commit import Bytes
from store.hdf5_image import locate
from store.place import Place, view
from store.shard import DAMAGE, LAYOUT, LIBVER, Shard, assembled, check_rows, fill_file
from store.tables import Floats

FEATURES = ("visual", "visual_flipped")
_BLOCK = 2**20  # bytes

Shards = Callable[[], Iterator[Shard]]  # all shards in order, read anew at each call


def nothing(shape: tuple[int, ...], dtype: str) -> Floats:
    """What stands for features of that shape while they are not in memory: zeros that take none."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def skeleton(shard: Shard, extra: dict[str, Any]) -> BinaryIO:
    """An HDF5 file in memory with all of `shard` but its features, for which there is room that takes no memory."""
    content = os.fdopen(os.memfd_create("packed"), "w+b", buffering=0)
    with h5py.File(content, "w", libver=LIBVER) as file:
        fill_file(file, shard, extra, FEATURES)
    return content


def body(content: BinaryIO, shards: Shards) -> Iterator[Bytes]:
    """The bytes of the skeleton `content`, in order, with the features of `shards` in their places.

    Raises:
        IntegrityError: the shards do not fill those places.
    """
    places = locate(content, FEATURES).arrays
    position = 0
    for key, place in sorted(places.items(), key=lambda item: item[1].offset or 0):
        if place.offset is None:
            continue
        yield from _blocks(content, position, place.offset)
        position = place.offset
        for shard in shards():
            rows = getattr(shard, key)
            if rows is None:
                raise IntegrityError(f"a shard of scene {shard.scene} has no {key}; run `stage2 store verify`")
            yield np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
            position += rows.nbytes
        if position != place.offset + place.dtype.itemsize * int(np.prod(place.shape)):
            raise IntegrityError(f"the shards hold other {key} than STORE.json counts; run `stage2 store verify`")
    yield from _blocks(content, position, content.seek(0, os.SEEK_END))


def read_body(file: BinaryIO, name: str) -> tuple[Shard, dict[str, Place]]:
    """All rows but the features of the packed store open as `file`, as one shard, and where its features lie.

    Raises:
        IntegrityError: it is none.
    """
    try:
        places = locate(file, LAYOUT)
        features = {key: place for key, place in places.arrays.items() if key in FEATURES}
        arrays = {key: _read(file, key, place) for key, place in places.arrays.items() if key not in features}
        arrays |= {key: nothing(place.shape, place.dtype.str) for key, place in features.items()}
        whole = assembled(arrays, places.attributes)
    except DAMAGE as error:
        raise IntegrityError(f"{name} is no packed store ({error})") from error
    check_rows(whole, name)
    return whole, features


def with_features(file: BinaryIO, shard: Shard, features: dict[str, Place], start: int) -> Shard:
    """`shard` with its features, rows `start` and on, as they stand in `file`."""
    rows = {key: _rows(file, key, place, start, len(shard.box)) for key, place in features.items()}
    return replace(shard, **rows)


def _rows(file: BinaryIO, key: str, place: Place, start: int, count: int) -> Any:
    width = place.shape[1] * place.dtype.itemsize
    offset = None if place.offset is None else place.offset + start * width
    return _read(file, key, Place(place.dtype, (count, place.shape[1]), offset))


def _read(file: BinaryIO, key: str, place: Place) -> Any:
    size = place.dtype.itemsize * int(np.prod(place.shape))
    content = os.pread(file.fileno(), size, place.offset or 0)
    offset = None if place.offset is None else 0
    return view(content, key, replace(place, offset=offset), *LAYOUT[key])


def _blocks(content: BinaryIO, start: int, stop: int) -> Iterator[Bytes]:
    for at in range(start, stop, _BLOCK):
        yield os.pread(content.fileno(), min(_BLOCK, stop - at), at)
