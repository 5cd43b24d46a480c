"""Reads a finished store: what it holds, in no time, or its rows, every byte checked."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import IntegrityError
from store.format.manifest import COMPLETE, Manifest, Unit, read_complete_manifest, read_manifest
from store.format.packed import read_packed
from store.format.shard import Shard, detached, read_shard
from store.tables import Features, Floats, Ints, Tables


def load_store(path: Path) -> Features:
    """All rows of the finished store at `path`, a folder or a packed file, every byte checked against its sha256.

    Raises:
        StoreError, IncompleteError: there is no finished store at `path`.
        IntegrityError: a shard is missing or damaged, or does not belong to the store.
    """
    manifest = read_complete_manifest(path)
    features = [_empty_features(path, manifest) for _ in range(manifest.recipe.views)]
    starts = np.cumsum([0] + [unit.stored_persons for unit in manifest.units]).tolist()

    def take(shard: Shard, start: int) -> Shard:
        """Copies the features to their rows, so that the shard's bytes can go and their memory serve the next."""
        features[0][start : start + len(shard.visual)] = shard.visual
        if shard.visual_flipped is not None:
            features[1][start : start + len(shard.visual)] = shard.visual_flipped
        return detached(shard)

    shards = _each_shard(path, manifest, lambda number, shard: take(shard, starts[number]))
    flipped = features[1] if manifest.recipe.views == 2 else None
    return Features(join_tables(tuple(manifest.scenes), shards), features[0], flipped, manifest.fingerprint)


def _empty_features(path: Path, manifest: Manifest) -> Floats:
    """(N, D) of the recipe's type; a STORE.json that promises more rows than its shards have bytes is refused."""
    persons, dim = sum(unit.stored_persons for unit in manifest.units), manifest.recipe.visual_dim
    size = persons * dim * np.dtype(manifest.recipe.dtype).itemsize
    if size > sum(unit.bytes for unit in manifest.units) or size > _bytes_on_disk(path):
        raise IntegrityError(f"{path} promises more features than it has bytes; run `stage2 store verify`")
    return np.empty((persons, dim), manifest.recipe.dtype)


def _bytes_on_disk(path: Path) -> int:
    files = [path] if path.is_file() else list((path / "shards").glob("*.h5"))
    return sum(_size(file) for file in files)


def _size(file: Path) -> int:
    """0 where an update has removed the file since it was listed; reading it will say so."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _each_shard(path: Path, manifest: Manifest, take: Callable[[int, Shard], Shard]) -> list[Shard]:
    """`take` of every checked shard, in order."""
    if path.is_file():
        return [take(number, shard) for number, shard in enumerate(load_shards(path, manifest))]

    def one(number: int) -> Shard:
        return take(number, load_unit(path, manifest, number))

    with ThreadPoolExecutor(2) as pool:  # reading and hashing release the interpreter, parsing does not
        return list(pool.map(one, range(len(manifest.units))))


def load_unit(path: Path, manifest: Manifest, number: int) -> Shard:
    """The checked shard of one unit of the complete store in folder `path`. Raises IntegrityError."""
    unit = manifest.units[number]
    shard = read_shard(path / "shards" / unit.shard)
    check_belongs(manifest, unit, shard, path)
    return shard


def load_unit_tables(path: Path, manifest: Manifest) -> list[Shard]:
    """Every shard of the complete store at `path`, checked, without its features. Raises IntegrityError."""
    return _each_shard(path, manifest, lambda _, shard: detached(shard))


def load_shards(path: Path, manifest: Manifest) -> list[Shard]:
    """Every shard of the complete store at `path`, folder or packed file, checked. Raises IntegrityError."""
    if not path.is_file():
        return _each_shard(path, manifest, lambda _, shard: shard)
    shards = read_packed(path, manifest)
    for unit, shard in zip(manifest.units, shards, strict=True):
        check_belongs(manifest, unit, shard, path)
    return shards


def join_tables(scenes: tuple[str, ...], shards: list[Shard]) -> Tables:
    """The tables of several shards as one, rows renumbered; `scenes` gives the scenes' order."""
    number = {scene: index for index, scene in enumerate(scenes)}
    frames = [len(shard.frame_name) for shard in shards]
    persons = np.cumsum([0] + [len(shard.box) for shard in shards])
    sets = sorted({labels for shard in shards for labels in shard.label_sets})
    set_number = {labels: index for index, labels in enumerate(sets)}
    label = [np.array([set_number[s] for s in shard.label_sets] or [0], np.int32)[shard.label] for shard in shards]
    offset = np.concatenate([[0]] + [shard.frame_offset[1:] + persons[i] for i, shard in enumerate(shards)])
    pair = _cat([shard.pair + persons[i] for i, shard in enumerate(shards)], (0, 2), "int64")
    return Tables(
        scenes=scenes,
        frame_scene=np.repeat(
            np.array([number[shard.scene] for shard in shards], np.int32), np.array(frames, np.int64)
        ),
        frame_name=_cat([shard.frame_name for shard in shards], (0,), "U1"),
        frame_index=_join(shards, "frame_index", (0,), "int32"),
        frame_size=_join(shards, "frame_size", (0, 2), "int32"),
        frame_offset=offset.astype(np.int64),
        box=_join(shards, "box", (0, 4), "float64"),
        person_id=_join(shards, "person_id", (0,), "int64"),
        pair=pair,
        pair_frame=(np.searchsorted(offset, pair[:, 0], side="right") - 1).astype(np.int32),
        spatial=_join(shards, "spatial", (0, 8), "float32"),
        label=_cat(label, (0,), "int32"),
        label_sets=tuple(sets),
    )


def store_info(path: Path) -> dict[str, Any]:
    """What the store at `path` holds, from STORE.json alone. Raises StoreError where there is none."""
    manifest = read_manifest(path)
    units = manifest.units
    values = sum(unit.stored_persons for unit in units) * manifest.recipe.visual_dim
    planned = {kind: sum(getattr(unit, kind) for unit in units) for kind in ("frames", "persons", "pairs")}
    stored = {kind: sum(getattr(unit, f"stored_{kind}") for unit in units) for kind in ("frames", "persons", "pairs")}
    return {
        "path": str(path),
        "complete": manifest.state == COMPLETE,
        "format": manifest.format,
        "fingerprint": manifest.fingerprint,
        "recipe": manifest.recipe.to_dict(),
        "weights": manifest.weights,
        "frame_interval": manifest.selection.frame_interval,
        "selected_persons": manifest.selection.persons,
        "scenes": len(manifest.scenes),
        **stored,
        "planned": planned,
        "stored": stored,
        "skipped": skipped_counts(units),
        "skipped_by_kind": {
            kind: planned[f"{kind}s"] - stored[f"{kind}s"] if manifest.state == COMPLETE else 0
            for kind in ("frame", "person", "pair")
        },
        "units": len(units),
        "visual_dim": manifest.recipe.visual_dim,
        "dtype": manifest.recipe.dtype,
        "bytes": sum(unit.bytes for unit in units),
        "zero_share": sum(unit.zeros for unit in units) / values if values else 0.0,
    }


def skipped_counts(units: tuple[Unit, ...]) -> dict[str, int]:
    """Reason -> how many items (frames, persons and pairs together) were skipped for it."""
    counts: dict[str, int] = {}
    for unit in units:
        for reasons in unit.skipped.values():
            for reason, count in reasons.items():
                counts[reason] = counts.get(reason, 0) + count
    return dict(sorted(counts.items()))


def check_belongs(manifest: Manifest, unit: Unit, shard: Shard, path: Path) -> None:
    """Raises IntegrityError unless the shard is the one that the plan means, with rows of the recipe's kind."""
    recipe = manifest.recipe
    if shard.attributes.get("digest") != unit.digest or shard.scene != unit.scene:
        raise IntegrityError(f"{path}: {unit.shard} is a shard of another store; run the same `stage2 extract` again")
    views = 1 if shard.visual_flipped is None else 2
    kind = (str(shard.visual.dtype), shard.visual.shape, views)
    if kind != (recipe.dtype, (unit.stored_persons, recipe.visual_dim), recipe.views):
        raise IntegrityError(
            f"{path}: {unit.shard} holds other features than the recipe says; run the same `stage2 extract` again"
        )


def _join(shards: list[Shard], name: str, shape: tuple[int, ...], dtype: str) -> Any:
    return _cat([getattr(shard, name) for shard in shards], shape, dtype)


def _cat(arrays: list[Any], shape: tuple[int, ...], dtype: str) -> Any:
    """The arrays one after another; an empty one of `shape` and `dtype` where there are none."""
    return np.concatenate(arrays) if arrays else np.empty(shape, dtype)


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
