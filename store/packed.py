"""One file for a whole store: its flat tables as HDF5 datasets behind a header with STORE.json and a sha256.

Why flat tables and not the shards' bytes: whoever opens the file with h5py finds `visual`, `box`, `pair`, ... of all
frames, persons and pairs, one dataset each, and needs nothing of ours. Why one checksum over the whole: the file is
made to be copied, and a copy is whole or it is not. It is laid out as one large shard, so one reader serves both.

The file is built in memory and published like a shard, since HDF5 itself dies on a full disk: packing takes memory of
up to five times the store's size, loading a packed store of about twice.
"""

from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import IntegrityError, StoreError
from store.commit import publish
from store.manifest import Manifest, manifest_text
from store.packed_header import REMEDY, header_of, read_whole
from store.shard import Shard, parse_shard, shard_image
from store.tables import Tables
from store.unit_check import attributes_of


def pack(manifest: Manifest, shards: list[Shard], tables: Tables, out: Path) -> int:
    """Publishes the complete store of `manifest` as file `out`; returns its size in bytes.

    The bytes are read back and compared with the shards row by row before they get their name.

    Args:
        shards: of every unit, checked. tables: theirs, joined.

    Raises:
        StoreError: `out` is a folder. IntegrityError: what would be written is not what the shards hold.
        StorageError: the file system refuses; a file that stood there is kept.
    """
    if out.is_dir():
        raise StoreError(f"{out} is a folder; name the file to write, e.g. {out / 'features.h5'}")
    scenes = np.array([scene.encode() for scene in tables.scenes], np.bytes_)
    extra = {"frame_scene": scenes[tables.frame_scene]} if len(tables.frame_scene) else {}
    body = shard_image(_joined(shards, tables), extra)
    copies = split(manifest, parse_shard(body, out.name), out)
    for unit, copy, shard in zip(manifest.units, copies, shards, strict=True):
        if not _same_rows(copy, shard):
            raise IntegrityError(f"packing changed rows of {unit.shard}; nothing was written, report this")
    header = header_of(manifest_text(manifest), [body])
    publish(out, (header, body))
    return len(header) + len(body)


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


def _joined(shards: list[Shard], tables: Tables) -> Shard:
    """All rows as one shard of no scene."""

    def cat(name: str, empty: Any) -> Any:
        return np.concatenate([getattr(shard, name) for shard in shards]) if shards else empty

    flipped = bool(shards) and shards[0].visual_flipped is not None
    return Shard(
        scene="",
        visual=cat("visual", np.empty((0, 0), np.float16)),
        visual_flipped=cat("visual_flipped", None) if flipped else None,
        box=tables.box,
        person_id=tables.person_id,
        frame_name=tables.frame_name,
        frame_index=tables.frame_index,
        frame_size=tables.frame_size,
        frame_offset=tables.frame_offset,
        frame_sha256=cat("frame_sha256", np.empty(0, np.str_)),
        pair=tables.pair,
        spatial=tables.spatial,
        label=tables.label,
        label_sets=tables.label_sets,
        skipped=tuple(item for shard in shards for item in shard.skipped),
    )


def _same_rows(one: Shard, other: Shard) -> bool:
    """Whether two shards hold the same, bit for bit; labels by their meaning, since sets may be numbered otherwise."""
    names = {item.name for item in fields(Shard)} - {"label", "label_sets"}
    same = all(_same(getattr(one, name), getattr(other, name)) for name in names)
    return same and [one.label_sets[i] for i in one.label] == [other.label_sets[i] for i in other.label]


def _same(one: Any, other: Any) -> bool:
    """Bit for bit: NaN is itself, and 0 is not -0."""
    if not isinstance(one, np.ndarray):
        return bool(one == other)
    if one.dtype.kind == "U":  # text may be padded to another width
        return bool(one.tolist() == other.tolist())
    return bool((one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes()))
