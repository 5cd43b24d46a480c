"""A store that memory does not hold: its tables, and its features unit by unit, every byte checked each time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from store.manifest import Manifest, read_complete_manifest
from store.reader import join_tables, load_unit, load_unit_tables
from store.tables import Floats, Ints, Tables


@dataclass(frozen=True)
class StoredFeatures:
    """A finished store whose features stay on the disk; persons of unit u are rows `starts[u]:starts[u + 1]`."""

    path: Path
    manifest: Manifest
    tables: Tables
    starts: Ints  # (U + 1,)

    @property
    def fingerprint(self) -> str:
        """The store's."""
        return self.manifest.fingerprint

    def read(self, units: Sequence[int]) -> list[Floats]:
        """For each view the features (rows, D) of `units`, in their order.

        Raises:
            IntegrityError: a shard is missing or damaged.
        """
        shards = [load_unit(self.path, self.manifest, unit) for unit in units]
        views = [np.concatenate([shard.visual for shard in shards])]
        flipped = [shard.visual_flipped for shard in shards if shard.visual_flipped is not None]
        return [*views, np.concatenate(flipped)] if flipped else views


def open_stored(path: Path) -> StoredFeatures:
    """Reads every shard of the store in folder `path` once, and keeps all but the features.

    Raises:
        StoreError, IncompleteError, IntegrityError: as `store.reader.load_store`.
    """
    manifest = read_complete_manifest(path)
    tables = join_tables(tuple(manifest.scenes), load_unit_tables(path, manifest))
    starts = np.cumsum([0] + [unit.stored_persons for unit in manifest.units])
    return StoredFeatures(path, manifest, tables, starts)
