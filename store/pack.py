"""Writes a finished store into one file, in memory that does not grow with its features."""

from collections.abc import Iterator
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from configs.errors import IntegrityError, StoreError
from store.files import staged
from store.format.manifest import Manifest, manifest_text, read_complete_manifest
from store.format.packed import Shards, body, nothing, read_body, skeleton, split, with_features
from store.format.packed_header import header_of
from store.format.shard import Shard
from store.reader import join_tables, load_shards, load_unit, load_unit_tables
from store.tables import Tables


def pack_store(path: Path, out: Path) -> int:
    """Packs the finished store at `path` into the one file `out`; returns its size in bytes.

    The shards are read four times: for their tables, for the file's checksum, to be written, and to be compared, row
    by row, with what was written, before the file gets its name. A packed `path` is held in memory instead.

    Raises:
        StoreError, IncompleteError, IntegrityError: as `store.reader.load_store`, or `out` is a folder, or what was
            written is not what the shards hold.
        StorageError: the file system refuses; a file that stood there is kept.
    """
    if out.is_dir():
        raise StoreError(f"{out} is a folder; name the file to write, e.g. {out / 'features.h5'}")
    manifest = read_complete_manifest(path)

    def shards() -> Iterator[Shard]:
        if path.is_file():
            return iter(load_shards(path, manifest))
        return (load_unit(path, manifest, number) for number in range(len(manifest.units)))

    with _skeleton(path, manifest) as content:
        header = header_of(manifest_text(manifest), body(content, shards))
        with staged(out, lambda: chain([header], body(content, shards))) as written:
            _compare(written, manifest, shards, out)
            return written.stat().st_size


def _skeleton(path: Path, manifest: Manifest) -> BinaryIO:
    """The packed file's HDF5 part without its features."""
    detached = load_unit_tables(path, manifest)
    tables = join_tables(tuple(manifest.scenes), detached)
    scenes = np.array([scene.encode() for scene in tables.scenes], np.bytes_)
    extra = {"frame_scene": scenes[tables.frame_scene]} if len(tables.frame_scene) else {}
    return skeleton(_joined(manifest, detached, tables), extra)


def _joined(manifest: Manifest, shards: list[Shard], tables: Tables) -> Shard:
    """All rows but the features as one shard of no scene."""
    recipe = manifest.recipe
    features = nothing((len(tables.box), recipe.visual_dim), recipe.dtype)
    return Shard(
        scene="",
        visual=features,
        visual_flipped=features if recipe.views == 2 else None,
        box=tables.box,
        person_id=tables.person_id,
        frame_name=tables.frame_name,
        frame_index=tables.frame_index,
        frame_size=tables.frame_size,
        frame_offset=tables.frame_offset,
        frame_sha256=np.concatenate([np.empty(0, np.str_), *(shard.frame_sha256 for shard in shards)]),
        pair=tables.pair,
        spatial=tables.spatial,
        label=tables.label,
        label_sets=tables.label_sets,
        skipped=tuple(item for shard in shards for item in shard.skipped),
    )


def _compare(written: Path, manifest: Manifest, shards: Shards, out: Path) -> None:
    """Raises IntegrityError where the file `written` does not hold the rows of the shards."""
    with written.open("rb") as file:
        whole, features = read_body(file, out.name)
        start = 0
        for unit, copy, shard in zip(manifest.units, split(manifest, whole, out), shards(), strict=True):
            if not _same_rows(with_features(file, copy, features, start), shard):
                raise IntegrityError(f"packing changed rows of {unit.shard}; nothing was written, report this")
            start += len(copy.box)


def _same_rows(one: Shard, other: Shard) -> bool:
    """Whether two shards hold the same, bit for bit; labels by their meaning, since sets may be numbered otherwise."""
    names = {item.name for item in fields(Shard)} - {"label", "label_sets"}
    same = all(_same(getattr(one, name), getattr(other, name)) for name in names)
    return same and [one.label_sets[i] for i in one.label] == [other.label_sets[i] for i in other.label]


def _same(one: Any, other: Any) -> bool:
    """Bit for bit: NaN is itself, and 0 is not -0."""
    if not isinstance(one, np.ndarray) or not isinstance(other, np.ndarray):
        return bool(one is other or (type(one) is type(other) and one == other))
    if one.dtype.kind == "U":  # text may be padded to another width
        return bool(one.tolist() == other.tolist())
    return bool((one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes()))
