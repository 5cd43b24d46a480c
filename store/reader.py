"""Reads finished stores: a summary from STORE.json alone, or the rows, with every byte checked."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import IntegrityError, StoreError
from configs.read_file import MANIFEST_BYTES, read_file
from configs.schema import Schema, fits
from store.format.ledger import Ledger
from store.format.manifest import COMPLETE, Manifest
from store.format.paths import VERIFY
from store.format.shard import Shard, Skipped, join_tables, without_features
from store.open import FolderStore, PackedStore, open_complete_store, read_manifest
from store.tables import AXES, PERSON, Features, Floats, Ints, Tables

_SKIPPED_LINE: Schema = {"kind": str, "scene": str, "frame": str, "item": str, "reason": str}


def load_store(path: Path) -> Features:
    """All rows of the finished store at `path`, a folder or a packed file, every byte checked against its sha256.

    Raises:
        StoreError, IncompleteError: there is no finished store at `path`.
        IntegrityError: a shard is missing or damaged, or does not belong to the store.
    """
    store = open_complete_store(path)
    manifest = store.manifest
    views = [_empty_features(store) for _ in range(manifest.recipe.views)]
    starts = manifest.row_starts(PERSON)

    def copy_features(number: int, shard: Shard) -> Shard:
        """Copies the features into `views`, so that the shard's bytes can be freed before the next one is read."""
        rows = slice(starts[number], starts[number] + len(shard.visual))
        views[0][rows] = shard.visual
        if shard.visual_flipped is not None:
            views[1][rows] = shard.visual_flipped
        return without_features(shard)

    tables = join_tables(tuple(manifest.scenes), store.map_shards(copy_features))
    return Features(tables, views[0], views[1] if len(views) == 2 else None, manifest.fingerprint)


def _empty_features(store: FolderStore | PackedStore) -> Floats:
    """(N, D) of the recipe's dtype, uninitialised.

    Raises:
        IntegrityError: STORE.json declares more features than the store has bytes. Checked before allocating.
    """
    recipe, persons = store.manifest.recipe, store.manifest.row_starts(PERSON)[-1]
    size = persons * recipe.visual_dim * np.dtype(recipe.dtype).itemsize
    if size > sum(unit.bytes for unit in store.manifest.units) or size > store.bytes_on_disk():
        raise IntegrityError(f"{store.path} declares more features than it has bytes; {VERIFY}")
    return np.empty((persons, recipe.visual_dim), recipe.dtype)


def load_tables(store: FolderStore | PackedStore) -> tuple[Tables, list[Shard]]:
    """The joined tables of a complete store, and its shards without features; every byte is checked.

    Raises:
        IntegrityError: a shard is missing or damaged.
    """
    shards = store.map_shards(lambda _, shard: without_features(shard))
    return join_tables(tuple(store.manifest.scenes), shards), shards


@dataclass(frozen=True)
class StoredFeatures:
    """A finished store whose features stay on the disk. The persons of unit u are rows `starts[u]:starts[u + 1]`."""

    store: FolderStore
    tables: Tables
    starts: Ints  # (U + 1,)

    @property
    def manifest(self) -> Manifest:
        """The manifest of the store."""
        return self.store.manifest

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the store."""
        return self.manifest.fingerprint

    def read(self, units: Sequence[int]) -> list[Floats]:
        """For each view, the features (rows, D) of `units` in the given order.

        Raises:
            IntegrityError: a shard is missing or damaged.
        """
        shards = [self.store.read_unit(unit) for unit in units]
        visual = np.concatenate([shard.visual for shard in shards])
        flipped = [shard.visual_flipped for shard in shards if shard.visual_flipped is not None]
        return [visual, np.concatenate(flipped)] if flipped else [visual]


def open_stored_features(path: Path) -> StoredFeatures:
    """Reads and checks every shard of the store in folder `path` once, and keeps everything but the features.

    Raises:
        StoreError, IncompleteError, IntegrityError: as `load_store`, or the store is packed.
    """
    store = open_complete_store(path)
    if isinstance(store, PackedStore):
        raise StoreError(f"{path} is a packed store, which can only be loaded as a whole; use its folder")
    tables, _ = load_tables(store)
    return StoredFeatures(store, tables, np.array(store.manifest.row_starts(PERSON)))


def store_info(path: Path) -> dict[str, Any]:
    """A summary of the store at `path`, from STORE.json alone. Raises StoreError if there is no store."""
    manifest = read_manifest(path)
    units = manifest.units
    planned, stored = manifest.planned_rows(), manifest.stored_rows()
    values = stored["persons"] * manifest.recipe.visual_dim
    complete = manifest.state == COMPLETE
    ledger = Ledger.of_units(unit for unit in units if unit.shard)
    return {
        "path": str(path),
        "complete": complete,
        "format": manifest.format,
        "fingerprint": manifest.fingerprint,
        "recipe": manifest.recipe.to_dict(),
        "weights": manifest.weights,
        **({} if manifest.int8 is None else {"int8": manifest.int8.summary()}),
        "frame_interval": manifest.selection.frame_interval,
        "selected_persons": manifest.selection.persons,
        "scenes": len(manifest.scenes),
        **stored,
        "planned": planned,
        "stored": stored,
        "skipped": ledger.by_reason(),
        "damaged": ledger.damaged,
        "skipped_by_kind": {axis: planned[f"{axis}s"] - stored[f"{axis}s"] if complete else 0 for axis in AXES},
        "units": len(units),
        "visual_dim": manifest.recipe.visual_dim,
        "dtype": manifest.recipe.dtype,
        "bytes": sum(unit.bytes for unit in units),
        "zero_share": sum(unit.zeros for unit in units) / values if values else 0.0,
    }


def store_ledger(path: Path, scenes: Collection[str] | None = None) -> Ledger:
    """What the finished store at `path` planned, stored and skipped; examples are from skipped.jsonl, if it is there.

    Args:
        scenes: only these; None: all.

    Raises:
        StoreError, IncompleteError: there is no finished store at `path`.
    """
    store = open_complete_store(path)
    items = _read_skipped(store.paths.skipped) if isinstance(store, FolderStore) else ()
    if scenes is None:
        return Ledger.of_units(store.manifest.units, items)
    units = (unit for unit in store.manifest.units if unit.scene in scenes)
    return Ledger.of_units(units, (item for item in items if item.scene in scenes))


def _read_skipped(path: Path) -> Iterator[Skipped]:
    """The items in a skipped.jsonl, as far as it can be read; `stage2 store verify` reports what is wrong with it."""
    try:
        for line in read_file(path, max_bytes=MANIFEST_BYTES).splitlines():
            values = json.loads(line)
            if not fits(values, _SKIPPED_LINE):
                return
            yield Skipped(**{name: values[name] for name in _SKIPPED_LINE})
    except (OSError, ValueError, RecursionError):
        return
