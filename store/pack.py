"""Packs a finished store into one file, with memory that does not depend on the number of features."""

from dataclasses import fields, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from configs.errors import IntegrityError, StoreError
from configs.read_file import open_file
from store.files import publish_after_check
from store.format.manifest import Manifest, manifest_text
from store.format.packed import (
    Shards,
    hdf5_without_features,
    insert_features,
    read_packed_tables,
    split_units,
    with_features,
)
from store.format.packed_header import make_header
from store.format.shard import Shard
from store.format.shard_file import placeholder_features
from store.format.units import shard_recipe
from store.open import FolderStore, PackedStore, open_complete_store
from store.outputs import claim_file
from store.reader import load_tables
from store.tables import join_rows


def pack_store(path: Path, out: Path, overwrite: bool = False) -> int:
    """Packs the finished store at `path` into the file `out`; returns its size in bytes.

    Reads the shards four times: for their tables, for the checksum, for writing, and for comparing every row with the
    written file before it is renamed to `out`. If `path` is a packed store, it is read into memory each time.

    Raises:
        StoreError, IncompleteError, IntegrityError: as `store.reader.load_store`, or `out` is a folder, or the written
            file differs from the shards.
        StorageError: the file system fails; an existing `out` is kept.
    """
    if out.is_dir():
        raise StoreError(f"{out} is a folder; name the file to write, e.g. {out / 'features.h5'}")
    claim_file(out, overwrite=overwrite, inputs=(path,))
    store = open_complete_store(path)
    with _hdf5_without_features(store) as content:
        header = make_header(manifest_text(store.manifest), insert_features(content, store.shards))
        with publish_after_check(out, lambda: chain([header], insert_features(content, store.shards))) as written:
            _check_same(written, store.manifest, store.shards, out)
            return written.stat().st_size


def _hdf5_without_features(store: FolderStore | PackedStore) -> BinaryIO:
    """The HDF5 file of the packed store, with space for its features."""
    tables, shards = load_tables(store)
    recipe = store.manifest.recipe
    features = placeholder_features((len(tables.box), recipe.visual_dim), recipe.dtype)
    whole = Shard.from_tables(
        tables,
        scene="",
        visual=features,
        visual_flipped=features if recipe.views == 2 else None,
        frame_sha256=join_rows("frame_sha256", [shard.frame_sha256 for shard in shards]),
        skipped=tuple(item for shard in shards for item in shard.skipped),
    )
    scenes = np.array([scene.encode() for scene in tables.scenes], np.bytes_)
    whole = replace(whole, attributes={"recipe": shard_recipe(store.manifest)})
    extra = {"frame_scene": scenes[tables.frame_scene]} if len(tables.frame_scene) else {}
    return hdf5_without_features(whole, extra)


def _check_same(written: Path, manifest: Manifest, shards: Shards, out: Path) -> None:
    """Raises IntegrityError unless the file `written` has the rows of the shards; `out` is for the message."""
    with open_file(written) as file:
        whole, features = read_packed_tables(file, out.name)
        start = 0
        for unit, copy, shard in zip(manifest.units, split_units(manifest, whole, out), shards(), strict=True):
            if not _same_rows(with_features(file, copy, features, start), shard):
                raise IntegrityError(f"packing changed rows of {unit.shard}; no file was written, please report this")
            start += len(copy.box)


def _same_rows(first: Shard, second: Shard) -> bool:
    """Whether two shards are equal bit for bit. Labels are compared by their sets, whose numbers may differ."""
    names = {item.name for item in fields(Shard)} - {"label", "label_sets"}
    same = all(_same(getattr(first, name), getattr(second, name)) for name in names)
    return same and [first.label_sets[i] for i in first.label] == [second.label_sets[i] for i in second.label]


def _same(first: Any, second: Any) -> bool:
    """Whether two values are equal bit for bit: NaN equals NaN, and 0 differs from -0."""
    if not isinstance(first, np.ndarray) or not isinstance(second, np.ndarray):
        return bool(first is second or (type(first) is type(second) and first == second))
    if first.dtype.kind == "U":  # text may be padded to a different width
        return bool(first.tolist() == second.tolist())
    return bool((first.dtype, first.shape, first.tobytes()) == (second.dtype, second.shape, second.tobytes()))
