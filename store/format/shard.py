"""One unit's rows as the bytes of an HDF5 file, and back.

The file is built and read in memory: HDF5 itself never touches the disk, where a full one would kill the process.
Datasets are contiguous, so the arrays are views of the bytes that were just hashed.
"""

import hashlib
import io
import json
import math
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t
from numpy.typing import NDArray

from configs.errors import IntegrityError
from store.files import sha256
from store.format.layout import Place, header_of, locate, read_header, view
from store.tables import Floats, Ints, Visual

# name -> (kinds of number, rank); visual_flipped is there in a store of two views only
LAYOUT: dict[str, tuple[str, int]] = {
    "visual": ("fu", 2),  # pixels are unsigned
    "visual_flipped": ("f", 2),
    "box": ("f", 2),
    "person_id": ("i", 1),
    "frame_name": ("S", 1),
    "frame_index": ("i", 1),
    "frame_size": ("i", 2),
    "frame_offset": ("i", 1),
    "frame_sha256": ("S", 1),
    "pair": ("i", 2),
    "spatial": ("f", 2),
    "label": ("i", 1),
    "label_sets": ("S", 1),
    "skipped": ("S", 1),
}
_ROWS = tuple(name for name in LAYOUT if name not in {"visual", "visual_flipped", "label_sets", "skipped"})
_OPTIONAL = {"visual_flipped"}
LIBVER = ("v110", "v110")  # checksums the metadata
# what parsing damaged bytes may raise
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, MemoryError)


@dataclass(frozen=True)
class Skipped:
    """An item that was planned and could not be stored, and why."""

    kind: str  # "frame", "person" or "pair"
    scene: str
    frame: str
    item: str  # person or pair id; "" for a frame
    reason: str

    def to_json(self) -> str:
        """One line of skipped.jsonl, in plain ASCII."""
        return json.dumps(vars(self), sort_keys=True)


@dataclass(frozen=True)
class Shard:
    """The rows of one unit: F frames, N persons, M pairs of one scene; letters and dtypes as in store.tables."""

    scene: str
    visual: Visual  # (N, D) float16 or float32; uint8 of crops
    visual_flipped: Visual | None
    box: Floats  # (N, 4) float64
    person_id: Ints  # (N,) int64
    frame_name: NDArray[np.str_]  # (F,)
    frame_index: Ints  # (F,) int32
    frame_size: Ints  # (F, 2) int32
    frame_offset: Ints  # (F + 1,) int64
    frame_sha256: NDArray[np.str_]  # (F,) of the image files' bytes
    pair: Ints  # (M, 2) int64, rows of this shard
    spatial: Floats  # (M, 8) float32
    label: Ints  # (M,) int32
    label_sets: tuple[tuple[str, ...], ...]
    skipped: tuple[Skipped, ...]
    attributes: dict[str, str] = field(default_factory=dict)  # recipe, digest, visual_digest


def shard_image(shard: Shard, extra: dict[str, Any] | None = None) -> bytes:
    """The bytes of `shard` as an HDF5 file; the same rows always give the same bytes. `extra`: datasets for people."""
    arrays = _arrays(shard) | (extra or {})
    block = max(2**16, sum(array.nbytes for array in arrays.values()))  # grown once, not bit by bit
    with h5py.File("shard", "w", driver="core", backing_store=False, libver=LIBVER, block_size=block) as file:
        fill_file(file, shard, extra or {})
        file.flush()
        return bytes(file.id.get_file_image())


def fill_file(file: h5py.File, shard: Shard, extra: dict[str, Any], reserved: Collection[str] = ()) -> None:
    """Writes the rows of `shard` and the datasets `extra`; those named in `reserved` get their room and no values."""
    file.attrs["scene"] = shard.scene
    for name, text in shard.attributes.items():
        file.attrs[name] = text
    for name, array in (_arrays(shard) | extra).items():
        if name in reserved and array.size:
            plist = h5p.create(h5p.DATASET_CREATE)
            plist.set_alloc_time(h5d.ALLOC_TIME_EARLY)
            plist.set_fill_time(h5d.FILL_TIME_NEVER)
            plist.set_obj_track_times(False)
            h5d.create(file.id, name.encode(), h5t.py_create(array.dtype), h5s.create_simple(array.shape), plist)
        else:
            file.create_dataset(name, data=array)


def _arrays(shard: Shard) -> dict[str, NDArray[Any]]:
    """The datasets of `shard`."""
    plain = {name: getattr(shard, name) for name in LAYOUT if name not in {"label_sets", "skipped"}}
    arrays = plain | {
        "frame_name": _encode(list(shard.frame_name)),
        "frame_sha256": _encode(list(shard.frame_sha256)),
        "label_sets": _encode([json.dumps(labels) for labels in shard.label_sets]),
        "skipped": _encode([item.to_json() for item in shard.skipped]),
    }
    return {name: array for name, array in arrays.items() if array is not None}


def shard_file(shard: Shard) -> bytes:
    """What is published of `shard`: its HDF5 file behind a header that says where in it everything lies."""
    body = shard_image(shard)
    return header_of(locate(io.BytesIO(body), LAYOUT)) + body


def parse_shard(image: bytes, name: str) -> Shard:
    """The shard in the bytes of an HDF5 file, by its header where it has one; its arrays are views of `image`.

    Raises:
        IntegrityError: a dataset is missing, of another shape or type, or its rows contradict another's.
    """
    try:
        places = read_header(image) or locate(io.BytesIO(image), LAYOUT)
        arrays = {key: view(image, key, place, *LAYOUT[key]) for key, place in places.arrays.items() if key in LAYOUT}
        shard = assembled(arrays, places.attributes)
    except DAMAGE as error:
        raise IntegrityError(f"{name} is no shard of a feature store ({error}); run `stage2 store verify`") from error
    check_rows(shard, name)
    return shard


def assembled(arrays: dict[str, Any], attributes: dict[str, str]) -> Shard:
    """The shard of datasets as they are stored. Raises one of `DAMAGE` where one is missing or its text is damaged."""
    missing = LAYOUT.keys() - arrays.keys() - _OPTIONAL
    if missing or "scene" not in attributes:
        raise ValueError(f"it has no {min(missing, default='scene')}")
    rows = {"visual_flipped": None} | arrays
    rows["frame_name"], rows["frame_sha256"] = _decoded(arrays["frame_name"]), _decoded(arrays["frame_sha256"])
    rows["skipped"] = tuple(Skipped(**json.loads(line)) for line in arrays["skipped"])
    rows["label_sets"] = tuple(_labels(line) for line in arrays["label_sets"])
    rest = {key: text for key, text in attributes.items() if key != "scene"}
    return Shard(scene=attributes["scene"], attributes=rest, **rows)


def read_shard(path: Path) -> Shard:
    """The shard in file `path`, whose name must carry the sha256 of its bytes.

    Raises:
        IntegrityError: the file is missing, its bytes do not match its name, or they are no shard.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError("no regular file")
        image = path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read ({error}); run the same `stage2 extract` again") from error
    if sha256(image) != path.stem.partition("-")[2]:
        raise IntegrityError(f"{path} does not match its checksum; run `stage2 store repair` or extract again")
    return parse_shard(image, path.name)


def detached(shard: Shard) -> Shard:
    """The shard without its features, its other rows copied, so that nothing holds the bytes that it was read from."""
    rows = {name: getattr(shard, name).copy() for name in _ROWS}
    nothing = np.empty((0, 0), shard.visual.dtype)
    return replace(shard, **(rows | {"visual": nothing, "visual_flipped": None}))


def matches(path: Path) -> bool:
    """Whether the file `path` is there, can be read and matches the checksum in its name; reads it in pieces."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == path.stem.partition("-")[2]
    except OSError:  # what a disk does not give back is not there
        return False


def _encode(texts: list[str]) -> NDArray[np.bytes_]:
    return np.array([text.encode() for text in texts], dtype=None if texts else "S1")


def _decoded(texts: NDArray[np.bytes_]) -> NDArray[np.str_]:
    try:
        return texts.astype(np.str_)  # plain ASCII, as most names are, at eight times the speed
    except UnicodeDecodeError:
        return np.char.decode(texts, "utf-8")


def _labels(line: bytes) -> tuple[str, ...]:
    labels = json.loads(line)
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError("label_sets holds no lists of labels")
    return tuple(labels)


def check_rows(shard: Shard, name: str) -> None:
    """Raises IntegrityError where the arrays contradict each other."""
    frames, persons, pairs = len(shard.frame_name), len(shard.visual), len(shard.pair)
    offset = shard.frame_offset
    checks = {
        "box": shard.box.shape == (persons, 4),
        "person_id": len(shard.person_id) == persons,
        "visual_flipped": shard.visual_flipped is None or shard.visual_flipped.shape == shard.visual.shape,
        "frame_index": len(shard.frame_index) == len(shard.frame_sha256) == frames,
        "frame_size": shard.frame_size.shape == (frames, 2),
        "frame_offset": len(offset) == frames + 1
        and offset[0] == 0
        and offset[-1] == persons
        and bool((np.diff(offset) >= 0).all()),
        "pair": shard.pair.shape == (pairs, 2) and bool(((shard.pair >= 0) & (shard.pair < persons)).all()),
        "spatial": shard.spatial.shape == (pairs, 8),
        "label": len(shard.label) == pairs and bool(((shard.label >= 0) & (shard.label < len(shard.label_sets))).all()),
    }
    for key, good in checks.items():
        if not good:
            raise IntegrityError(f"{name}: the rows of {key} contradict the others; run `stage2 store verify`")


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


SKIPPED = "skipped.jsonl"


def skipped_lines(items: Iterable[Skipped]) -> str:
    """The lines of `items`; the same store always has the same lines, and none where nothing was left out."""
    return "".join(f"{item.to_json()}\n" for item in items)
