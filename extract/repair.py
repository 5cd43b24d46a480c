"""Repairs a finished store: recomputes its damaged and missing shards, and nothing else, from the original data."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from configs.errors import AccessError, MismatchError, StoreError, WeightsError
from configs.extraction_config import ExtractionConfig
from extract.backbones.weights import WITHOUT_FILE, LoadedBackbone, load_backbone
from extract.convert import convert_unit, converted_manifest
from extract.images.identity import ImageIdentities
from extract.job import crop_config, plan_manifest, requested_manifest
from extract.rebuild import rebuild_manifest
from extract.units.plan import DEFAULT_UNIT_SIZE, UnitSize
from extract.units.statistics import JobStatistics
from extract.units.stream import stream_shards
from store.checks.verify import Report, verify_one
from store.crops import crops_folder
from store.format.manifest import Manifest, Unit
from store.format.paths import StorePaths
from store.format.recipe import CROPS, FORMAT, INT8, check_recipe
from store.format.shard import Shard
from store.format.units import describe_stored
from store.open import is_packed, read_complete_manifest, read_manifest
from store.writer import check_matches_plan, open_for_conversion, open_for_writing

_log = logging.getLogger("stage2")
_UNREADABLE = {"damaged_shard", "missing_shard"}  # faults of the file alone: STORE.json still has its correct counts


@dataclass(frozen=True)
class ComputeOptions:
    """How to compute; not part of the recipe, but a GPU may round differently in batches of a different size."""

    batch_size: int = 0  # as in ExtractionConfig
    num_workers: int = 4
    device: str = "auto"


@dataclass
class RepairSummary:
    """What a repair found and recomputed."""

    store: Path
    faults: int
    units: list[int] = field(default_factory=list)  # recomputed
    converted: int = 0  # units that were converted from an earlier format
    differing: list[str] = field(default_factory=list)  # recomputed shards whose bytes differ from the original's
    statistics: JobStatistics = field(default_factory=JobStatistics)
    crops: "RepairSummary | None" = None  # of the store of crops inside this one

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON."""
        values: dict[str, Any] = {
            "path": str(self.store),
            "faults": self.faults,
            "units": self.units,
            "converted": self.converted,
            "differing": self.differing,
            "frames_decoded": self.statistics.frames_decoded,
            "crops_forwarded": self.statistics.crops_forwarded,
        }
        return values if self.crops is None else values | {"crops": self.crops.to_dict()}


def repair(
    store: Path,
    data_path: Path,
    weights: str = "",
    options: ComputeOptions | None = None,
    *,
    unit_size: UnitSize = DEFAULT_UNIT_SIZE,
) -> RepairSummary:
    """Verifies the finished store in folder `store` and recomputes its faulty units; then its crops, if it has any.

    On the machine that made the store, each repaired shard has its original bytes. A different machine, or another
    version of torch or of this program, may round differently; the shards that differ are listed. A missing or damaged
    STORE.json is rebuilt from shards and data.

    Args:
        weights: file with the backbone's weights; "" if the store was made without a file.
        unit_size: as in the extraction that made the store.

    Raises:
        MismatchError: data or weights differ from those of the store; the message names the difference.
        StoreError, IncompleteError, IntegrityError: there is no finished store, or its recipe cannot be restored.
        LockedError, StorageError, DataError, WeightsError, DeviceError: as for `extract.job.extract`.
    """
    if is_packed(store):
        raise StoreError(f"{store} is a packed file; pack it again from its folder, or copy it again")
    options = options or ComputeOptions()
    summary = _repair_one(store, data_path, weights, options, unit_size)
    crops = crops_folder(store)
    if crops is not None:
        summary.crops = _repair_one(crops, data_path, "", options, unit_size)
    return summary


def _repair_one(
    store: Path, data_path: Path, weights: str, options: ComputeOptions, unit_size: UnitSize
) -> RepairSummary:
    """Repairs one store, without the store of crops inside it."""
    if _has_lost_manifest(store):
        rebuild_manifest(store, data_path, weights, unit_size)
        manifest = read_manifest(store)
    else:
        manifest = read_complete_manifest(store)
    report = verify_one(store)
    summary = RepairSummary(store, len(report.faults))
    config = _config_of(manifest, store, data_path, weights, options)
    if manifest.format != FORMAT:
        _convert(summary, manifest, config, unit_size)
    elif report.faults:
        _recompute(summary, report, config, unit_size)
    return summary


def _has_lost_manifest(store: Path) -> bool:
    """Whether STORE.json cannot be read although there are shards. Raises StoreError if there are no shards either."""
    try:
        read_manifest(store)
    except StoreError as error:
        if isinstance(error, AccessError) or not StorePaths(store).shard_files():
            raise
        _log.warning("%s; rebuilding it from the shards", error)
        return True
    return False


def _config_of(
    manifest: Manifest, store: Path, data_path: Path, weights: str, options: ComputeOptions
) -> ExtractionConfig:
    """Returns the configuration of the extraction that made the store."""
    recipe, selection = manifest.recipe, manifest.selection
    if recipe.backbone == CROPS:
        sizes: dict[str, Any] = {"crop_size": recipe.crop_size, "panorama": recipe.panorama}
        config = ExtractionConfig(str(data_path), str(store), **sizes, **vars(options))
        return crop_config(config, selection)
    return ExtractionConfig(
        data_path=str(data_path),
        store=str(store),
        backbone=recipe.backbone,
        weights=weights or (manifest.weights if manifest.weights in WITHOUT_FILE else ""),
        crop_size=recipe.crop_size,
        dtype=recipe.dtype,
        precision=recipe.precision,
        views=recipe.views,
        frame_interval=selection.frame_interval,
        persons=selection.persons,
        panorama=recipe.panorama,
        **vars(options),
    )


def _recompute(summary: RepairSummary, report: Report, config: ExtractionConfig, unit_size: UnitSize) -> None:
    """Recomputes the faulty units of the store that `report` is about, and records them in `summary`."""
    manifest, store = report.manifest, summary.store
    loaded, identities = _load_backbone(manifest, config), ImageIdentities()
    requested = replace(requested_manifest(config, loaded, identities), weights=manifest.weights)
    check_matches_plan(store, manifest, requested)
    units, plan = plan_manifest(config, requested, unit_size, identities)
    if manifest.recipe.precision == INT8:
        _log.info("The features are int8, with the activation ranges of the store")
    with open_for_writing(store, plan) as writer:
        writer.forget(report.bad_units)
        summary.units = writer.pending
        pending = {number: units[number] for number in writer.pending}
        for number, shard in stream_shards(pending, config, loaded, summary.statistics) if pending else ():
            old = manifest.units[number]
            if number in report.bad_units and _faults_of(report, number) <= _UNREADABLE:
                _check_counts(old, shard)
            writer.commit(number, shard)
            if old.shard not in ("", writer.done[number].shard):
                summary.differing.append(writer.done[number].shard)
        writer.finish()
    for name in summary.differing:
        _log.warning(
            "%s has different bytes than before: it was faulty, or rounding differs here or in this version", name
        )


def _load_backbone(manifest: Manifest, config: ExtractionConfig) -> LoadedBackbone | None:
    """Returns the backbone of a store, None for crops. Raises WeightsError if it needs a file that is not given."""
    if manifest.recipe.backbone == CROPS:
        return None
    if not config.weights:
        raise WeightsError(
            f"{config.store} was made with weights from {manifest.weights}; give that file with --weights"
        )
    loaded = load_backbone(config.backbone, config.weights)
    return replace(loaded, activation_ranges=manifest.recipe.activation_ranges, int8=manifest.int8)


def _convert(summary: RepairSummary, old: Manifest, config: ExtractionConfig, unit_size: UnitSize) -> None:
    """Converts a complete store of an earlier format; only units whose shards are damaged are computed again."""
    store, data_path, identities = summary.store, Path(config.data_path), ImageIdentities()
    new = converted_manifest(store, old, data_path, identities)
    config = replace(config, panorama=new.recipe.panorama)
    units, plan = plan_manifest(config, new, unit_size, identities)
    if [unit.scene for unit in units] != [unit.scene for unit in old.units]:
        raise MismatchError(
            f"{store} has other units than the data in {data_path}; give the original data with --data_path"
        )
    with open_for_conversion(store, plan) as writer:
        for number in writer.pending:
            shard = convert_unit(store, old.units[number].shard, units[number], data_path, new)
            if shard is not None:
                writer.commit(number, shard)
                summary.converted += 1
        summary.units = writer.pending
        if summary.units:
            loaded = _load_backbone(old, config)
            check_recipe(store, new.recipe, requested_manifest(config, loaded, identities).recipe, "give its --weights")
            pending = {number: units[number] for number in summary.units}
            for number, shard in stream_shards(pending, config, loaded, summary.statistics):
                writer.commit(number, shard)
        writer.finish()


def _faults_of(report: Report, number: int) -> set[str]:
    return {fault.kind for fault in report.faults if fault.unit == number}


def _check_counts(old: Unit, shard: Shard) -> None:
    """Raises MismatchError if the recomputed shard has different numbers of rows or skipped items than the old one."""
    new = describe_stored(old, old.shard, old.bytes, shard)
    for name in ("stored_frames", "stored_persons", "stored_pairs", "skipped"):
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            raise MismatchError(
                f"a unit of scene {old.scene} had {name} {before}, and {now} now: an image has changed; restore it, or "
                f"extract into another --store"
            )
