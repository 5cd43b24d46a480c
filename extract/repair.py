"""Computes again exactly what a finished store has lost, from its original data."""

import logging
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import IntegrityError, MismatchError, StoreError, WeightsError
from configs.extraction_config import PERSONS, ExtractionConfig
from extract.annotations.jrdb import scene_digests
from extract.backbones.weights import IMAGENET, NONE, RANDOM, WITHOUT_FILE, LoadedBackbone, load_backbone
from extract.job import crops_config, planned_store, wanted_store
from extract.units.plan import crop_recipe, describe, make_recipe, plan_units, unit_crops
from extract.units.stream import Tally, stream_shards
from store.crops import crops_within
from store.files import locked, storage_errors
from store.format.manifest import (
    NAME,
    Manifest,
    Selection,
    Unit,
    read_complete_manifest,
    read_manifest,
    shard_files,
    write_manifest,
)
from store.format.recipe import CROPS, Recipe, recipe_differences
from store.format.shard import Shard, read_shard
from store.format.units import committed
from store.verify import Report, verify_one
from store.writer import open_for_writing, refuse_mismatch

_log = logging.getLogger("stage2")
_LOST = {"damaged_shard", "missing_shard"}


@dataclass(frozen=True)
class Machine:
    """How to compute; none of it is part of a recipe, but a GPU may round otherwise in batches of another size."""

    batch_size: int = 0  # as in ExtractionConfig
    num_workers: int = 4
    device: str = "auto"


@dataclass
class Repaired:
    """What a repair did."""

    store: Path
    faults: int
    units: list[int] = field(default_factory=list)  # computed again
    differing: list[str] = field(default_factory=list)  # shards whose bytes are not those that were lost
    tally: Tally = field(default_factory=Tally)
    crops: "Repaired | None" = None  # what was done to the store of crops within

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = {"path": str(self.store), "faults": self.faults, "units": self.units, "differing": self.differing} | {
            "frames_decoded": self.tally.frames_decoded,
            "crops_forwarded": self.tally.crops_forwarded,
        }
        return found if self.crops is None else found | {"crops": self.crops.to_dict()}


def repair(store: Path, data_path: Path, weights: str = "", machine: Machine | None = None) -> Repaired:
    """Verifies the finished store in folder `store` and computes its faulty units again, and nothing else.

    The store of crops within it is repaired in the same way, after it.

    On the machine that made it the store is then, byte for byte, one that was never damaged; where another machine
    rounds otherwise, the shards that differ are named. A lost or damaged STORE.json is made anew from shards and data.

    Args:
        weights: "" for those that the store names, or the file that holds them.

    Raises:
        MismatchError: data or weights are not those that the store was made from; the difference is named.
        StoreError, IncompleteError, IntegrityError: there is no finished store, or nothing says what it was.
        LockedError, StorageError, DataError, WeightsError, DeviceError: as `extract.job.extract`.
    """
    if store.is_file():
        raise StoreError(f"{store} is one packed file; pack it again from its folder, or copy it again")
    repaired = _repaired(store, data_path, weights, machine or Machine())
    crops = crops_within(store)
    if crops is not None:
        repaired.crops = _repaired(crops, data_path, "", machine or Machine())
    return repaired


def _repaired(store: Path, data_path: Path, weights: str, machine: Machine) -> Repaired:
    """`repair` of one store, without what lies within it."""
    if _lost(store):
        rebuild_manifest(store, data_path, weights)
        manifest = read_manifest(store)
    else:
        manifest = read_complete_manifest(store)
    report = verify_one(store)
    repaired = Repaired(store, len(report.faults))
    if report.faults:
        _repair(repaired, report, _config(manifest, store, data_path, weights, machine))
    return repaired


def _lost(store: Path) -> bool:
    """Whether there are shards and no STORE.json that can be read."""
    try:
        read_manifest(store)
    except StoreError as error:
        if not shard_files(store):
            raise
        _log.warning("%s; it is made anew from the shards", error)
        return True
    return False


def _repair(repaired: Repaired, report: Report, config: ExtractionConfig) -> None:
    manifest, store = report.manifest, repaired.store
    loaded = None if manifest.recipe.backbone == CROPS else load_backbone(config.backbone, config.weights)
    wanted = replace(wanted_store(config, loaded), weights=manifest.weights)
    refuse_mismatch(store, manifest, wanted)
    units, plan = planned_store(config, wanted)
    lost = {number for number in report.bad_units if _kinds(report, number) <= _LOST}
    with open_for_writing(store, plan) as writer:
        writer.forget(report.bad_units)
        repaired.units = writer.pending
        rest = {number: units[number] for number in writer.pending}
        for number, shard in stream_shards(rest, config, loaded, repaired.tally) if rest else ():
            if number in lost:
                _refuse_other_rows(manifest.units[number], shard)
            writer.commit(number, shard)
            if manifest.units[number].shard not in ("", writer.done[number].shard):
                repaired.differing.append(writer.done[number].shard)
        writer.finish()
    for name in repaired.differing:
        _log.warning("%s has other bytes than before: it was faulty, or another machine rounds otherwise", name)


def _kinds(report: Report, number: int) -> set[str]:
    return {fault.kind for fault in report.faults if fault.unit == number}


def _refuse_other_rows(unit: Unit, shard: Shard) -> None:
    """Raises MismatchError where the data gives other rows than the lost shard had."""
    found = committed(unit, unit.shard, unit.bytes, shard)
    for name in ("stored_frames", "stored_persons", "stored_pairs", "skipped"):
        old, new = getattr(unit, name), getattr(found, name)
        if old != new:
            raise MismatchError(
                f"a unit of scene {unit.scene} had {name} {old}, and {new} now: an image has changed; restore it, or "
                f"extract into another --store"
            )


def _config(manifest: Manifest, store: Path, data_path: Path, weights: str, machine: Machine) -> ExtractionConfig:
    """The extraction that made the store."""
    recipe, selection = manifest.recipe, manifest.selection
    if recipe.backbone == CROPS:
        config = ExtractionConfig(str(data_path), str(store), crop_size=recipe.crop_size, **vars(machine))
        return crops_config(config, selection)
    if not weights and manifest.weights not in WITHOUT_FILE:
        raise WeightsError(f"{store} was made with weights from {manifest.weights}; give that file with --weights")
    return ExtractionConfig(
        data_path=str(data_path),
        store=str(store),
        backbone=recipe.backbone,
        weights=weights or manifest.weights,
        crop_size=recipe.crop_size,
        dtype=recipe.dtype,
        precision=recipe.precision,
        views=recipe.views,
        frame_interval=selection.frame_interval,
        persons=selection.persons,
        **vars(machine),
    )


_READ: dict[Any, Callable[[str], Any]] = {str: str, int: int, float: float}  # a field of the recipe from its text


@dataclass(frozen=True)
class _Remains:
    """What the sound shards of a store say."""

    recipe: Recipe
    digests: frozenset[str]  # of their units
    step: int  # the greatest number that divides all their frames' indices


def rebuild_manifest(store: Path, data_path: Path, weights: str = "") -> None:
    """Publishes an unfinished STORE.json for the shards in folder `store`; the old one goes to quarantine/.

    Args:
        weights: "" for those that need no file, or the file that holds the backbone's.

    Raises:
        IntegrityError: no shard is left that could say what the store was.
        MismatchError: data or weights are not those that the shards were made from.
        DataError, WeightsError, LockedError, StorageError: data, weights or the store cannot be used.
    """
    remains = _remains(store)
    loaded = _weights_of(remains.recipe, weights)
    selection, units = _plan_of(remains, data_path)
    source = NONE if loaded is None else loaded.source
    plan = Manifest(remains.recipe, selection, scene_digests(data_path), units, source)
    with locked(store / ".lock"), storage_errors(store):
        (store / ".tmp").mkdir(exist_ok=True)
        if (store / NAME).exists():
            (store / "quarantine").mkdir(exist_ok=True)
            (store / NAME).rename(store / "quarantine" / NAME)
        write_manifest(store, plan)


def _remains(store: Path) -> _Remains:
    recipes, digests, step = set(), set(), 0
    for path in shard_files(store):
        try:
            shard = read_shard(path)
        except IntegrityError:  # it will be moved aside and computed again
            continue
        recipes.add(shard.attributes.get("recipe", ""))
        digests.add(shard.attributes.get("digest", ""))
        step = math.gcd(step, *np.unique(shard.frame_index).tolist())
    if len(recipes) != 1:
        raise IntegrityError(f"{store} has no {NAME}, and its shards do not say what it was; extract into another one")
    return _Remains(_recipe_of(recipes.pop(), store), frozenset(digests), step)


def _recipe_of(text: str, store: Path) -> Recipe:
    """The recipe that `store.format.units.attributes_of` wrote as text."""
    pattern = "; ".join(f"{item.name}=(.*)" for item in fields(Recipe))
    try:
        values = re.fullmatch(pattern, text)
        if values is None:
            raise ValueError(text)
        return Recipe(*(_READ[item.type](value) for item, value in zip(fields(Recipe), values.groups(), strict=True)))
    except ValueError as error:
        raise IntegrityError(f"the shards of {store} do not say their recipe; extract into another store") from error


def _weights_of(recipe: Recipe, weights: str) -> LoadedBackbone | None:
    """The backbone of `recipe`, None for crops. Raises MismatchError where no weights at hand make that recipe."""
    if recipe == crop_recipe(recipe.crop_size):
        return None
    names = [weights] if weights else [NONE] if recipe.backbone == "hog" else [RANDOM, IMAGENET]
    differences = []
    for name in names:
        loaded = load_backbone(recipe.backbone, name)
        here = make_recipe(loaded, recipe.crop_size, recipe.dtype, recipe.views, recipe.precision)
        differences = recipe_differences(recipe, here)
        if not differences:
            return loaded
    raise MismatchError(
        f"the shards have a different recipe: {'; '.join(differences)}; give the file of their weights with --weights"
    )


def _plan_of(remains: _Remains, data_path: Path) -> tuple[Selection, tuple[Unit, ...]]:
    """The selection of the data that has all the shards' units, and those units."""
    for selection in _selections(remains.step):
        planned = plan_units(data_path, selection, crops=unit_crops(remains.recipe))
        units = tuple(describe(unit, remains.recipe) for unit in planned)
        if remains.digests <= {unit.digest for unit in units}:
            return selection, units
    raise MismatchError(f"the shards were not made from the data in {data_path}; give the original with --data_path")


def _selections(step: int) -> Iterator[Selection]:
    """Those that give frames whose indices `step` divides, the sparsest first."""
    for interval in range(max(step, 1), 0, -1):
        if step % interval == 0:
            for persons in PERSONS:
                yield Selection(interval, persons)
