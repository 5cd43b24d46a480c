"""One file for a whole store: its flat tables as HDF5 datasets behind a header with STORE.json and a sha256.

Why flat tables and not the shards' bytes: whoever opens the file with h5py finds `visual`, `box`, `pair`, ... of all
frames, persons and pairs, one dataset each, and needs nothing of ours. Why one checksum over the whole: the file is
made to be copied, and a copy is whole or it is not. It is laid out as one large shard, so one reader serves both.

store.pack writes it. To be read it is held in memory: loading takes about twice its size.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from configs.errors import IntegrityError
from store.files import Bytes
from store.format.layout import Place, locate, view
from store.format.manifest import Manifest
from store.format.packed_header import REMEDY, read_whole
from store.format.shard import DAMAGE, LAYOUT, LIBVER, Shard, assembled, check_rows, fill_file, parse_shard
from store.format.units import attributes_of
from store.tables import Floats


def read_packed(path: Path, manifest: Manifest) -> list[Shard]:
    """The shards of the packed store in file `path`, whose manifest is `manifest`.

    Raises:
        IntegrityError: the file does not match its checksum, or its rows are not those that STORE.json counts.
    """
    _, data = read_whole(path)
    return list(split(manifest, parse_shard(data, path.name), path))


def split(manifest: Manifest, whole: Shard, path: Path) -> Iterator[Shard]:
    """The rows of each unit, as views, renumbered. Raises IntegrityError where STORE.json counts others."""
    units = manifest.units
    ends = [
        list(accumulate((getattr(unit, f"stored_{kind}") for unit in units), initial=0))
        for kind in ("frames", "persons", "pairs")
    ]
    skipped = [sum(sum(reasons.values()) for reasons in unit.skipped.values()) for unit in units]
    held = [len(whole.frame_name), len(whole.visual), len(whole.pair), len(whole.skipped)]
    if held != [*(end[-1] for end in ends), sum(skipped)]:
        raise IntegrityError(f"{path} holds other rows than its STORE.json counts; {REMEDY}")
    items = iter(whole.skipped)
    for number, unit in enumerate(units):
        frames, persons, pairs = (slice(end[number], end[number + 1]) for end in ends)
        part = _rows(whole, frames, persons, pairs)
        if part.frame_offset[-1] != len(part.box) or ((part.pair < 0) | (part.pair >= len(part.box))).any():
            raise IntegrityError(f"{path} holds rows that reach out of their unit; {REMEDY}")
        mine = tuple(islice(items, skipped[number]))
        yield replace(part, scene=unit.scene, skipped=mine, attributes=attributes_of(manifest, unit))


def _rows(whole: Shard, frames: slice, persons: slice, pairs: slice) -> Shard:
    flipped = whole.visual_flipped
    return replace(
        whole,
        visual=whole.visual[persons],
        visual_flipped=None if flipped is None else flipped[persons],
        box=whole.box[persons],
        person_id=whole.person_id[persons],
        frame_name=whole.frame_name[frames],
        frame_index=whole.frame_index[frames],
        frame_size=whole.frame_size[frames],
        frame_offset=whole.frame_offset[frames.start : frames.stop + 1] - persons.start,
        frame_sha256=whole.frame_sha256[frames],
        pair=whole.pair[pairs] - persons.start,
        spatial=whole.spatial[pairs],
        label=whole.label[pairs],
    )


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
    rows = {key: _feature_rows(file, key, place, start, len(shard.box)) for key, place in features.items()}
    return replace(shard, **rows)


def _feature_rows(file: BinaryIO, key: str, place: Place, start: int, count: int) -> Any:
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
