"""A shard's tables without its features: some kilobytes of a file that may be large, and where the features lie."""

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from configs.errors import IntegrityError
from store.hdf5_image import locate
from store.place import Place, view
from store.shard import DAMAGE, LAYOUT, Shard, assembled, check_rows
from store.shard_header import read_header

_HEAD = 2**16  # bytes in which a shard's header is looked for


@dataclass(frozen=True)
class ShardTables:
    """What was read."""

    shard: Shard  # `visual` has its shape and type, and zeros for values; `visual_flipped` is not read
    offset: int  # of the first byte of `visual` in the file; 0 where it has no rows


def read_tables(path: Path) -> ShardTables:
    """The tables of the shard in file `path`; they agree with each other, and no checksum has been looked at.

    Raises:
        IntegrityError: the file is missing, or no shard whose arrays each lie in one piece in it.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError("no regular file")
        with path.open("rb") as file:
            return _read(file, path.name)
    except DAMAGE as error:
        raise IntegrityError(f"{path} cannot be read ({error}); run `stage2 store repair`") from error


def _read(file: BinaryIO, name: str) -> ShardTables:
    places = read_header(file.read(_HEAD)) or locate(file, LAYOUT)
    rows = places.arrays.keys() & LAYOUT.keys() - {"visual", "visual_flipped"}
    arrays = {key: _array(file, key, places.arrays[key]) for key in rows}
    visual = places.arrays["visual"]
    _check_stored(file, "visual", visual)
    zeros = np.broadcast_to(np.zeros((), visual.dtype), visual.shape)
    shard = assembled(arrays | {"visual": zeros}, places.attributes)
    check_rows(shard, name)
    return ShardTables(shard, visual.offset or 0)


def _array(file: BinaryIO, key: str, place: Place) -> NDArray[Any]:
    """The array `key`, read from its place."""
    size = _check_stored(file, key, place)
    data = os.pread(file.fileno(), size, place.offset or 0)
    return view(data, key, replace(place, offset=0), *LAYOUT[key])


def _check_stored(file: BinaryIO, key: str, place: Place) -> int:
    """The bytes of the array `key`. Raises ValueError where the file has not so many."""
    size = math.prod(place.shape) * place.dtype.itemsize
    if size and (place.offset is None or place.offset + size > os.fstat(file.fileno()).st_size):
        raise ValueError(f"{key} is declared and not stored")
    return size
