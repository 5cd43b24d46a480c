"""A packed store: one HDF5 file with the columns of all units, behind a header with STORE.json and a sha256.

It has one dataset per column (`visual`, `box`, `pair`, ...) rather than shards, so that any program can use it through
h5py. One checksum covers all bytes, because the file is made to be copied as a whole. Its HDF5 file has the layout of
one large shard, so both are parsed by the same code.

`store.pack` writes it. Reading needs about twice its size in memory.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from configs.errors import IntegrityError
from store.files import Bytes
from store.format.layout import ArrayLocation, hdf5_layout, read_array
from store.format.manifest import Manifest
from store.format.packed_header import PACK_AGAIN, read_checked
from store.format.paths import VERIFY
from store.format.shard import Shard, check_rows, slice_shard
from store.format.shard_file import (
    DATASETS,
    LIBVER,
    PARSE_ERRORS,
    parse_shard,
    placeholder_features,
    shard_from_arrays,
    write_datasets,
)
from store.format.units import shard_attributes
from store.tables import AXES, FEATURES

_BLOCK = 2**20  # bytes

Shards = Callable[[], Iterator[Shard]]  # returns all shards in order; every call reads them again


def read_packed(path: Path, manifest: Manifest) -> list[Shard]:
    """The shards of the packed store in file `path`, whose manifest is `manifest`.

    Raises:
        IntegrityError: the file does not match its checksum, or has other rows than its STORE.json says.
    """
    return list(split_units(manifest, parse_shard(read_checked(path), path.name), path))


def split_units(manifest: Manifest, whole: Shard, path: Path) -> Iterator[Shard]:
    """The rows of each unit as views, renumbered.

    Raises:
        IntegrityError: the numbers of rows are not those in STORE.json.
    """
    starts = {axis: manifest.row_starts(axis) for axis in AXES}
    skipped = [sum(sum(reasons.values()) for reasons in unit.skipped.values()) for unit in manifest.units]
    actual = [len(whole.frame_name), len(whole.visual), len(whole.pair), len(whole.skipped)]
    if actual != [*(starts[axis][-1] for axis in AXES), sum(skipped)]:
        raise IntegrityError(f"{path} has other rows than its STORE.json says; {PACK_AGAIN}")
    items = iter(whole.skipped)
    for number, unit in enumerate(manifest.units):
        part = slice_shard(whole, {axis: slice(*starts[axis][number : number + 2]) for axis in AXES})
        if part.frame_offset[-1] != len(part.box) or ((part.pair < 0) | (part.pair >= len(part.box))).any():
            raise IntegrityError(f"{path} has rows that refer to another unit; {PACK_AGAIN}")
        own = tuple(islice(items, skipped[number]))
        yield replace(part, scene=unit.scene, skipped=own, attributes=shard_attributes(manifest, unit))


def hdf5_without_features(shard: Shard, extra: dict[str, NDArray[np.bytes_]]) -> BinaryIO:
    """An HDF5 file in memory with `shard` and the datasets `extra`. Its features are sparse: they take no memory."""
    content = os.fdopen(os.memfd_create("packed"), "w+b", buffering=0)
    with h5py.File(content, "w", libver=LIBVER) as file:
        write_datasets(file, shard, extra, FEATURES)
    return content


def insert_features(content: BinaryIO, shards: Shards) -> Iterator[Bytes]:
    """The bytes of the HDF5 file `content` in pieces, with the features of `shards` in the space reserved for them.

    Raises:
        IntegrityError: the features do not have the reserved size.
    """
    locations = hdf5_layout(content, FEATURES).arrays
    position = 0
    for key, location in sorted(locations.items(), key=lambda item: item[1].offset or 0):
        if location.offset is None:
            continue
        yield from _blocks(content, position, location.offset)
        position = location.offset
        for shard in shards():
            rows = getattr(shard, key)
            if rows is None:
                raise IntegrityError(f"a shard of scene {shard.scene} has no {key}; {VERIFY}")
            yield np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
            position += rows.nbytes
        if position != location.offset + location.size:
            raise IntegrityError(f"the shards have other {key} rows than STORE.json says; {VERIFY}")
    yield from _blocks(content, position, content.seek(0, os.SEEK_END))


def _blocks(content: BinaryIO, start: int, stop: int) -> Iterator[Bytes]:
    for at in range(start, stop, _BLOCK):
        yield os.pread(content.fileno(), min(_BLOCK, stop - at), at)


def read_packed_tables(file: BinaryIO, name: str) -> tuple[Shard, dict[str, ArrayLocation]]:
    """All rows but the features of an open packed store as one shard, and the locations of its features.

    Raises:
        IntegrityError: the file is not a packed store.
    """
    try:
        layout = hdf5_layout(file, DATASETS)
        features = {key: location for key, location in layout.arrays.items() if key in FEATURES}
        arrays = {
            key: placeholder_features(location.shape, location.dtype)
            if key in features
            else read_array(file, key, location, *DATASETS[key])
            for key, location in layout.arrays.items()
        }
        whole = shard_from_arrays(arrays, layout.attributes)
    except PARSE_ERRORS as error:
        raise IntegrityError(f"{name} is not a valid packed store ({error})") from error
    check_rows(whole, name)
    return whole, features


def with_features(file: BinaryIO, shard: Shard, features: dict[str, ArrayLocation], start: int) -> Shard:
    """`shard` with its features, which are the rows from `start` of the arrays `features` in `file`."""
    rows: dict[str, Any] = {}
    for key, location in features.items():
        dtype, (_, dim), offset = location.dtype, location.shape, location.offset
        at = None if offset is None else offset + start * dim * dtype.itemsize
        part = ArrayLocation(dtype, (len(shard.box), dim), at)
        rows[key] = read_array(file, key, part, *DATASETS[key])
    return replace(shard, **rows)
