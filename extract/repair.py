"""Computes again exactly what a finished store has lost, from its original data."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from configs.errors import MismatchError, StoreError, WeightsError
from configs.extraction_config import ExtractionConfig
from extract.job import crops_config, planned_store, wanted_store
from extract.rebuild import rebuild_manifest
from extract.stream import Tally, stream_shards
from extract.weights import WITHOUT_FILE, load_backbone
from store.crops import crops_within
from store.manifest import Manifest, Unit, read_complete_manifest, read_manifest, shard_files
from store.recipe import CROPS
from store.shard import Shard
from store.unit_check import committed
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
