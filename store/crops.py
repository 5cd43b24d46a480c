"""Reads stored crops by person, whatever the store's size: nothing is kept in memory but the tables.

Rows are read from the shards' files by position: some 30 us a crop of 112 pixels where a memory mapping takes 6, next
to nothing beside its forward pass. In return other threads run while the disk is waited for, a file that is cut short
is an error and no dead process, and none stays open (each mapping holds one, and a job may often open 1,024 only).
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
from store.format.manifest import NAME, Manifest, read_complete_manifest, shard_files
from store.format.recipe import CROPS, PIXEL_DTYPE
from store.format.shard import ShardTables, matches, read_tables
from store.reader import check_belongs, join_tables, store_info
from store.tables import Ints

_REMEDY = "run `stage2 store repair` or extract again"


class Crops:
    """A finished store of crops; several threads may read it at once.

    The tables come from shards whose checksums have not been looked at yet. All that is known of a pair (boxes, spatial
    features, label) lies in the shard of its two people, so it has been checked once their rows have been read.
    """

    def __init__(self, path: Path, manifest: Manifest, shards: list[ShardTables]) -> None:
        self.tables = join_tables(tuple(manifest.scenes), [shard.shard for shard in shards])
        self.fingerprint = manifest.fingerprint
        self.crop_size = manifest.recipe.crop_size  # S, pixels
        self._dim = manifest.recipe.visual_dim
        self._files = [path / "shards" / unit.shard for unit in manifest.units]
        self._offsets = [shard.offset for shard in shards]
        self._starts = np.cumsum([0] + [unit.stored_persons for unit in manifest.units])  # (U + 1,)
        self._locks = [Lock() for _ in shards]
        self._checked = [False] * len(shards)

    def rows(self, persons: Ints) -> NDArray[np.uint8]:
        """The crops (P, 3 * S * S) of the persons in rows (P,) of `tables`, each in (3, S, S) order.

        Raises:
            IntegrityError: a shard that is read for the first time does not match its checksum, or one cannot be read.
            IndexError: there is no such person.
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
            if not self._checked[unit] and not matches(self._files[unit]):
                raise IntegrityError(f"{self._files[unit]} does not match its checksum; {_REMEDY}")
            self._checked[unit] = True

    def _read(self, unit: int, rows: Ints, crops: list[NDArray[np.uint8]]) -> None:
        try:
            with self._files[unit].open("rb", buffering=0) as file:
                for row, crop in zip(rows.tolist(), crops, strict=True):
                    if os.preadv(file.fileno(), [crop.data], self._offsets[unit] + row * self._dim) != self._dim:
                        raise OSError("the file has become shorter")
        except OSError as error:
            raise IntegrityError(f"{self._files[unit]} cannot be read ({error}); {_REMEDY}") from error


def open_crops(store: Path) -> Crops:
    """The crops of the feature store in folder `store`, or those of the store of crops in it.

    Raises:
        StoreError, IncompleteError: there are no crops, or they are not finished.
        MismatchError: the crops within a feature store have other rows than it.
        IntegrityError: a shard is missing, or is none; damage within one is found when its rows are read.
    """
    folder, manifest = _store_of_crops(store)
    recipe = manifest.recipe
    if (recipe.visual_dim, recipe.dtype, recipe.views) != (3 * recipe.crop_size**2, PIXEL_DTYPE, 1):
        raise IntegrityError(
            f"{folder} calls itself a store of crops and does not hold any; extract with --crops again"
        )

    def read(number: int) -> ShardTables:
        unit = manifest.units[number]
        found = read_tables(folder / "shards" / unit.shard)
        check_belongs(manifest, unit, found.shard, folder)
        return found

    with ThreadPoolExecutor(2) as pool:  # waiting for the disk releases the interpreter
        return Crops(folder, manifest, list(pool.map(read, range(len(manifest.units)))))


def _store_of_crops(store: Path) -> tuple[Path, Manifest]:
    """The store of crops that `store` is or has, and its manifest."""
    manifest = read_complete_manifest(store)
    folder = store if manifest.recipe.backbone == CROPS else crops_within(store)
    if store.is_file() or folder is None:
        what = "is one packed file, which has" if store.is_file() else "has"
        raise StoreError(f"{store} {what} no crops beside its features; run the same `stage2 extract` with --crops")
    if folder == store:
        return store, manifest
    crops = read_complete_manifest(folder)
    differences = crop_differences(manifest, crops)
    if differences:
        raise MismatchError(
            f"{folder} has other rows than {store}: {'; '.join(differences)}; run the same `stage2 extract` with "
            f"--crops and --update or --retry_skipped"
        )
    return folder, crops


def crops_within(store: Path) -> Path | None:
    """The store of crops of the feature store in folder `store`; None where it has none, or one just begun."""
    folder = store / CROPS
    return folder if (folder / NAME).exists() or shard_files(folder) else None


def info_with_crops(store: Path) -> dict[str, Any]:
    """`store.reader.store_info`, and that of the crops within as "crops". Raises as `store_info`."""
    crops = crops_within(store)
    return store_info(store) | ({} if crops is None else {"crops": store_info(crops)})


def crop_differences(features: Manifest, crops: Manifest) -> list[str]:
    """One text for each thing in which a store's rows are not those of the crops within it."""
    texts = replace(features, recipe=crops.recipe).differences(crops)
    if features.recipe.crop_size != crops.recipe.crop_size:
        texts.insert(0, f"crop_size {features.recipe.crop_size}, not {crops.recipe.crop_size}")
    here, there = _stored(features), _stored(crops)
    texts += [f"{here[kind]} {kind} stored, not {there[kind]}" for kind in here if here[kind] != there[kind]]
    return texts


def _stored(manifest: Manifest) -> dict[str, int]:
    kinds = ("frames", "persons", "pairs")
    return {kind: sum(getattr(unit, f"stored_{kind}") for unit in manifest.units) for kind in kinds}
