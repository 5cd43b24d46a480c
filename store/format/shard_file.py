"""A shard as the bytes of a file, and back: a header with the position of every array, then an HDF5 file.

The HDF5 file is built and parsed in memory. HDF5 never writes to the disk itself, because a full disk makes it end
the process. Its datasets are contiguous, so the arrays of a loaded shard are views of the bytes that were hashed.
"""

import hashlib
import io
import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t
from numpy.typing import NDArray

from configs.errors import AccessError, IntegrityError, StoreError
from configs.read_file import SHARD_BYTES, is_no_access, open_file, read_file
from store.files import sha256
from store.format.descriptions import dataset_attributes
from store.format.layout import array_view, check_stored, hdf5_layout, make_header, parse_header, read_array
from store.format.paths import EXTRACT, REPAIR, VERIFY, checksum_in_name
from store.format.shard import Shard, Skipped, check_rows
from store.tables import COLUMNS, FEATURES, Visual, column_names, columns_of

_TEXT = ("S", 1)  # numpy kind and rank
_COLUMNS = column_names(Shard)
# name -> (numpy kinds, rank) of each dataset, in the order in which they are written
DATASETS = {name: (COLUMNS[name].kinds, 2 if COLUMNS[name].width else 1) for name in _COLUMNS} | {
    "label_sets": _TEXT,
    "skipped": _TEXT,
}
_OPTIONAL = {"visual_flipped"}
# No file can have this name: HDF5 opens and reads an existing file of the name also where it makes a file in memory.
_IN_MEMORY = f"{os.devnull}/shard"
LIBVER = ("v110", "v110")  # this HDF5 version and later add checksums to the file's metadata
# the errors that parsing damaged bytes can raise
PARSE_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, MemoryError)


def shard_image(shard: Shard) -> bytes:
    """The bytes of `shard` as an HDF5 file. Equal rows give equal bytes."""
    block = max(2**16, sum(array.nbytes for array in _datasets(shard).values()))  # so that HDF5 allocates only once
    with h5py.File(_IN_MEMORY, "w", driver="core", backing_store=False, libver=LIBVER, block_size=block) as file:
        write_datasets(file, shard)
        file.flush()
        return bytes(file.id.get_file_image())


def shard_file(shard: Shard) -> bytes:
    """The bytes of a shard's file: its HDF5 file with a header in front that gives the position of every array."""
    image = shard_image(shard)
    return make_header(hdf5_layout(io.BytesIO(image), DATASETS)) + image


def write_datasets(
    file: h5py.File, shard: Shard, extra: dict[str, NDArray[Any]] | None = None, reserved: Collection[str] = ()
) -> None:
    """Writes the attributes and datasets of `shard`, and the datasets `extra`.

    Args:
        reserved: datasets that get space in the file but no values.
    """
    file.attrs["scene"] = shard.scene
    for name, text in shard.attributes.items():
        file.attrs[name] = text
    for name, array in (_datasets(shard) | (extra or {})).items():
        if name in reserved and array.size:
            plist = h5p.create(h5p.DATASET_CREATE)
            plist.set_alloc_time(h5d.ALLOC_TIME_EARLY)
            plist.set_fill_time(h5d.FILL_TIME_NEVER)
            plist.set_obj_track_times(False)
            h5d.create(file.id, name.encode(), h5t.py_create(array.dtype), h5s.create_simple(array.shape), plist)
        else:
            file.create_dataset(name, data=array)
        for attribute, text in dataset_attributes(name).items():
            file[name].attrs[attribute] = text


def _datasets(shard: Shard) -> dict[str, NDArray[Any]]:
    columns = columns_of(shard)
    texts = {name: _encode(list(columns[name])) for name in columns if COLUMNS[name].kinds == "S"}
    return (
        columns
        | texts
        | {
            "label_sets": _encode([json.dumps(labels) for labels in shard.label_sets]),
            "skipped": _encode([item.to_json() for item in shard.skipped]),
        }
    )


def _encode(texts: list[str]) -> NDArray[np.bytes_]:
    return np.array([text.encode() for text in texts], dtype=None if texts else "S1")


def _decode(texts: NDArray[np.bytes_]) -> NDArray[np.str_]:
    try:
        return texts.astype(np.str_)  # ASCII only, but 8 times faster
    except UnicodeDecodeError:
        return np.char.decode(texts, "utf-8")


def parse_shard(image: bytes, name: str) -> Shard:
    """The shard in the bytes of a file, with or without a header; its arrays are views of `image`.

    Args:
        name: of the file, for the error message.

    Raises:
        IntegrityError: a dataset is missing, has the wrong shape or type, or contradicts another one.
    """
    try:
        layout = parse_header(image) or hdf5_layout(io.BytesIO(image), DATASETS)
        arrays = {
            key: array_view(image, key, location, *DATASETS[key])
            for key, location in layout.arrays.items()
            if key in DATASETS
        }
        shard = shard_from_arrays(arrays, layout.attributes)
    except PARSE_ERRORS as error:
        raise IntegrityError(f"{name} is not a valid shard ({error}); {VERIFY}") from error
    check_rows(shard, name)
    return shard


def shard_from_arrays(arrays: dict[str, Any], attributes: dict[str, str]) -> Shard:
    """The shard with these datasets and attributes, as they are in the file.

    Raises:
        One of PARSE_ERRORS: a dataset or the scene is missing, or a text cannot be decoded.
    """
    missing = DATASETS.keys() - arrays.keys() - _OPTIONAL
    if missing or "scene" not in attributes:
        raise ValueError(f"{min(missing, default='scene')} is missing")
    rows = {"visual_flipped": None} | arrays
    rows |= {name: _decode(arrays[name]) for name in _COLUMNS if COLUMNS[name].kinds == "S"}
    rows["skipped"] = tuple(Skipped(**json.loads(line)) for line in arrays["skipped"])
    rows["label_sets"] = tuple(_parse_labels(line) for line in arrays["label_sets"])
    rest = {key: text for key, text in attributes.items() if key != "scene"}
    return Shard(scene=attributes["scene"], attributes=rest, **rows)


def _parse_labels(line: bytes) -> tuple[str, ...]:
    labels = json.loads(line)
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError("label_sets does not contain lists of labels")
    return tuple(labels)


def read_shard(path: Path) -> Shard:
    """The shard in file `path`, whose name must contain the sha256 of its bytes.

    Raises:
        IntegrityError: the file is missing or damaged, or its bytes do not match its name.
        AccessError: the file may not be read.
    """
    try:
        image = read_file(path, max_bytes=SHARD_BYTES)
    except OSError as error:
        raise unreadable(path, error, EXTRACT) from error
    if sha256(image) != checksum_in_name(path):
        raise IntegrityError(f"{path} does not match its checksum; {REPAIR}")
    return parse_shard(image, path.name)


def shard_is_intact(path: Path) -> bool:
    """Whether the file `path` exists and matches the checksum in its name. Reads it block by block.

    Raises:
        AccessError: the file may not be read.
    """
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == checksum_in_name(path)
    except OSError as error:
        if is_no_access(error):
            raise unreadable(path, error, EXTRACT) from error
        return False  # missing, or the disk fails


def unreadable(path: Path, error: BaseException, remedy: str) -> StoreError:
    """The error for a file of a store that cannot be read: AccessError if it may be intact, else IntegrityError."""
    if is_no_access(error):
        return AccessError(f"{path} may not be read ({error}); it was left as it is: check its permissions")
    return IntegrityError(f"{path} cannot be read ({error}); {remedy}")


@dataclass(frozen=True)
class ShardTables:
    """A shard's tables, and where its features are in its file."""

    shard: Shard  # `visual` has the right shape and type but contains zeros; `visual_flipped` is None
    offset: int  # of the first byte of `visual` in the file; 0 if it has no rows


_HEADER_SEARCH = 2**16  # bytes at the start of a shard that are read to find its header


def read_shard_tables(path: Path) -> ShardTables:
    """The tables of the shard in file `path`. They are checked against each other, but not against the checksum.

    Raises:
        IntegrityError: the file is missing, or not a shard with contiguous arrays.
        AccessError: the file may not be read.
    """
    try:
        with open_file(path) as file:
            return _read_tables(file, path.name)
    except PARSE_ERRORS as error:
        raise unreadable(path, error, REPAIR) from error


def _read_tables(file: BinaryIO, name: str) -> ShardTables:
    layout = parse_header(file.read(_HEADER_SEARCH)) or hdf5_layout(file, DATASETS)
    keys = layout.arrays.keys() & DATASETS.keys() - set(FEATURES)
    arrays = {key: read_array(file, key, layout.arrays[key], *DATASETS[key]) for key in keys}
    visual = layout.arrays["visual"]
    check_stored(file, "visual", visual)
    placeholder = placeholder_features(visual.shape, visual.dtype)
    shard = shard_from_arrays(arrays | {"visual": placeholder}, layout.attributes)
    check_rows(shard, name)
    return ShardTables(shard, visual.offset or 0)


def placeholder_features(shape: tuple[int, ...], dtype: "str | np.dtype[Any]") -> Visual:
    """Zeros of this shape that take no memory, for a shard whose features stay in its file."""
    return np.broadcast_to(np.zeros((), dtype), shape)
