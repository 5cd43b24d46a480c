"""Reads stored crops by person, for stores of any size: only the tables are kept in memory.

Rows are read with pread, about 30 us for a crop of 112 pixels. A memory mapping takes 6 us, but blocks other threads
while the disk works, ends the process if the file gets shorter, and needs one open mapping per shard.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import IntegrityError, MismatchError, StoreError
from configs.read_file import open_descriptor
from store.format.manifest import Manifest
from store.format.paths import REPAIR, StorePaths
from store.format.recipe import CROPS, PIXEL_DTYPE, value_differences
from store.format.shard import join_tables
from store.format.shard_file import ShardTables, read_shard_tables, shard_is_intact, unreadable
from store.format.units import check_shard_of_unit
from store.open import is_packed, read_complete_manifest
from store.reader import store_info
from store.tables import PERSON, Ints, join_rows


class Crops:
    """A finished store of crops. Several threads may read it at once.

    The tables are read before the checksums of their shards are checked. All data of a pair (boxes, spatial features,
    label) is in the shard of its two persons, so it has been checked once the rows of its persons are read.
    """

    def __init__(self, path: Path, manifest: Manifest, shards: list[ShardTables]) -> None:
        self.tables = join_tables(tuple(manifest.scenes), [shard.shard for shard in shards])
        self.frame_sha256 = join_rows("frame_sha256", [shard.shard.frame_sha256 for shard in shards])  # (F,)
        self.fingerprint = manifest.fingerprint
        self.crop_size = manifest.recipe.crop_size  # S, pixels
        self._dim = manifest.recipe.visual_dim
        self._files = [StorePaths(path).shard(unit.shard) for unit in manifest.units]
        self._offsets = [shard.offset for shard in shards]
        self._starts = np.array(manifest.row_starts(PERSON))  # (U + 1,)
        self._locks = [Lock() for _ in shards]
        self._checked = [False] * len(shards)

    def rows(self, persons: Ints) -> NDArray[np.uint8]:
        """The crops (P, 3 * S * S) of the persons in rows (P,) of `tables`, each in (3, S, S) order.

        Raises:
            IntegrityError: a shard that is read for the first time does not match its checksum, or cannot be read.
            IndexError: a person does not exist.
        """
        if len(persons) and (persons.min() < 0 or persons.max() >= self._starts[-1]):
            raise IndexError(f"the store has persons 0 to {self._starts[-1] - 1}")
        crops = np.empty((len(persons), self._dim), np.uint8)
        units = np.searchsorted(self._starts, persons, side="right") - 1
        for unit in np.unique(units).tolist():
            self._check(unit)
            wanted = np.flatnonzero(units == unit)
            self._read(unit, persons[wanted] - self._starts[unit], [crops[row] for row in wanted])
        return crops

    def _check(self, unit: int) -> None:
        with self._locks[unit]:
            if not self._checked[unit] and not shard_is_intact(self._files[unit]):
                raise IntegrityError(f"{self._files[unit]} does not match its checksum; {REPAIR}")
            self._checked[unit] = True

    def _read(self, unit: int, rows: Ints, crops: list[NDArray[np.uint8]]) -> None:
        try:
            file = open_descriptor(self._files[unit])
            try:
                for row, crop in zip(rows.tolist(), crops, strict=True):
                    if os.preadv(file, [crop.data], self._offsets[unit] + row * self._dim) != self._dim:
                        raise OSError("the file has become shorter")
            finally:
                os.close(file)
        except OSError as error:
            raise unreadable(self._files[unit], error, REPAIR) from error


def open_crops(store: Path) -> Crops:
    """The crops of the feature store in folder `store`, or of the store of crops in it.

    Raises:
        StoreError, IncompleteError: there are no crops, or their extraction has not finished.
        MismatchError: the crops in a feature store have other rows than its features.
        IntegrityError: a shard is missing or is not a shard. Other damage is detected when its rows are read.
    """
    folder, manifest = _find_crops(store)
    recipe = manifest.recipe
    if (recipe.visual_dim, recipe.dtype, recipe.views) != (3 * recipe.crop_size**2, PIXEL_DTYPE, 1):
        raise IntegrityError(f"{folder} is declared as a store of crops but has none; extract with --crops again")

    def read(number: int) -> ShardTables:
        unit = manifest.units[number]
        tables = read_shard_tables(StorePaths(folder).shard(unit.shard))
        check_shard_of_unit(manifest, unit, tables.shard, folder)
        return tables

    with ThreadPoolExecutor(2) as pool:  # waiting for the disk releases the GIL
        return Crops(folder, manifest, list(pool.map(read, range(len(manifest.units)))))


def _find_crops(store: Path) -> tuple[Path, Manifest]:
    """The folder and manifest of the store of crops that is at `store` or in it."""
    manifest = read_complete_manifest(store)
    if is_packed(store):
        raise StoreError(f"{store} is a packed store, which has no crops; use its folder")
    if manifest.recipe.backbone == CROPS:
        return store, manifest
    folder = crops_folder(store)
    if folder is None:
        raise StoreError(f"{store} has features but no crops; run the same `stage2 extract` with --crops")
    crops = read_complete_manifest(folder)
    differences = crop_differences(manifest, crops)
    if differences:
        raise MismatchError(
            f"{folder} has other rows than {store}: {'; '.join(differences)}; run the same `stage2 extract` with "
            f"--crops and --update or --retry_skipped"
        )
    return folder, crops


def crops_folder(store: Path) -> Path | None:
    """The folder of the store of crops in the feature store `store`; None if it has none, or an empty one."""
    folder = store / CROPS
    paths = StorePaths(folder)
    return folder if paths.manifest.exists() or paths.shard_files() else None


def info_with_crops(store: Path) -> dict[str, Any]:
    """As `store.reader.store_info`, with the summary of the crops in the store as "crops"."""
    crops = crops_folder(store)
    return store_info(store) | ({} if crops is None else {"crops": store_info(crops)})


def crop_differences(features: Manifest, crops: Manifest) -> list[str]:
    """One text for each way in which the rows of a feature store are not those of its crops."""
    texts = replace(features, recipe=crops.recipe).differences(crops)
    sizes = [{"crop_size": manifest.recipe.crop_size} for manifest in (features, crops)]
    return value_differences(*sizes) + texts + value_differences(features.stored_rows(), crops.stored_rows())
