"""The extraction job: plans units, crops and forwards their persons, and writes the store. A second run resumes."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from configs.errors import DataError, StoreError
from configs.extraction_config import ExtractionConfig
from configs.process.failures import how_to_continue
from extract.annotations.jrdb import scene_digests
from extract.backbones.weights import NONE, LoadedBackbone, load_backbone
from extract.device import pick_device
from extract.recipe import crop_recipe, feature_recipe
from extract.units.assemble import assemble_from_features
from extract.units.plan import DEFAULT_UNIT_SIZE, PlannedUnit, UnitSize, manifest_entry, plan_units
from extract.units.skips import check_skip_limit, count_skipped_before_reading, count_skipped_in_store
from extract.units.statistics import JobStatistics
from extract.units.stream import stream_shards
from store.find import find_store, is_finished
from store.format.manifest import Manifest, Selection, Unit
from store.format.recipe import CROPS
from store.format.shard import Skipped
from store.open import is_packed, read_complete_manifest
from store.reader import store_info
from store.writer import StoreWriter, open_for_writing

_log = logging.getLogger("stage2")
_KEPT = "during the extraction; finished units are kept: run the same command again to continue"


@dataclass
class ExtractionSummary:
    """The store that a job wrote, and what the job had to compute for it."""

    store: Path
    on_cpu: bool
    units_reused: int = 0
    statistics: JobStatistics = field(default_factory=JobStatistics)
    crops: "ExtractionSummary | None" = None  # of the store of crops inside this one

    def to_dict(self) -> dict[str, Any]:
        """Returns the store's description and the job's statistics as plain values for JSON."""
        values = store_info(self.store) | {"units_reused": self.units_reused} | vars(self.statistics)
        values |= {"bound": self.statistics.bottleneck(self.on_cpu)}
        return values if self.crops is None else values | {"crops": self.crops.to_dict()}


def extract(config: ExtractionConfig) -> ExtractionSummary:
    """Extracts the features that `config` describes, resumes an unfinished extraction, or reuses a finished one.

    Raises:
        DataError, WeightsError, DeviceError: an input cannot be used.
        TooManySkippedError: more items are unusable than `config.max_skipped` allows.
        MismatchError, LockedError, StoreError, StorageError: the store cannot be written.
    """
    return extract_with(config, load_backbone(config.backbone, config.weights))


def extract_with(
    config: ExtractionConfig, loaded: LoadedBackbone, *, unit_size: UnitSize = DEFAULT_UNIT_SIZE
) -> ExtractionSummary:
    """`extract` with a backbone that is already loaded. Raises the same errors."""
    requested = requested_manifest(config, loaded)
    path = Path(config.store) if config.store else find_store(requested)
    if config.crops and is_packed(path):
        raise StoreError(f"{path} is a packed file, which cannot contain crops; name a folder with --store")
    summary = _extract_into(path, requested, config, loaded, unit_size)
    if config.crops:
        config = crop_config(config, read_complete_manifest(path).selection)
        summary.crops = _extract_into(path / CROPS, requested_manifest(config, None), config, None, unit_size)
    return summary


def crop_config(config: ExtractionConfig, selection: Selection) -> ExtractionConfig:
    """Returns the configuration for the crops of a store with `selection`; storing crops needs no GPU."""
    interval, persons = selection.frame_interval, selection.persons
    return replace(config, frame_interval=interval, persons=persons, views=1, device="cpu", precision="float32")


def requested_manifest(config: ExtractionConfig, loaded: LoadedBackbone | None) -> Manifest:
    """Returns the manifest, without units, of the store that `config` describes.

    Args:
        loaded: the backbone; None for a store of crops.

    Raises:
        DataError: the data cannot be read.
    """
    if loaded is None:
        recipe, source = crop_recipe(config.crop_size), NONE
    else:
        recipe = feature_recipe(loaded, config.crop_size, config.dtype, config.views, config.precision)
        source = loaded.source
    selection = Selection(config.frame_interval, config.persons)
    return Manifest(recipe, selection, scene_digests(Path(config.data_path)), (), source)


def plan_manifest(
    config: ExtractionConfig, requested: Manifest, unit_size: UnitSize
) -> tuple[list[PlannedUnit], Manifest]:
    """Plans the units of `requested`; returns them and the manifest that lists them. Raises DataError."""
    crops = unit_size.crops_for(requested.recipe)
    units = plan_units(Path(config.data_path), requested.selection, crops=crops)
    return units, replace(requested, units=tuple(manifest_entry(unit, requested.recipe) for unit in units))


def _extract_into(
    path: Path, requested: Manifest, config: ExtractionConfig, loaded: LoadedBackbone | None, unit_size: UnitSize
) -> ExtractionSummary:
    """Writes the store at `path` unless it is finished; `loaded` is None for a store of crops."""
    start = perf_counter()
    summary = ExtractionSummary(path, pick_device(config.device).type == "cpu")
    if not config.retry_skipped and is_finished(path, requested):
        summary.units_reused = int(store_info(path)["units"])
    else:
        units, plan = plan_manifest(config, requested, unit_size)
        if config.on_error == "fail":
            for unit in units:
                _fail_on_skipped(unit.skipped)
        check_skip_limit(count_skipped_before_reading(units), units, config.max_skipped)
        summary.statistics.seconds["plan"] = perf_counter() - start
        writing = open_for_writing(path, plan, config.update, config.remove_missing)
        with how_to_continue(lambda: _KEPT), writing as writer:
            if config.retry_skipped:
                writer.forget([number for number, unit in writer.done.items() if _has_unusable_images(unit)])
            summary.units_reused = len(writer.done)
            _reuse_features(writer, units)
            _compute_pending(writer, units, config, loaded, summary.statistics)
            writer.finish()
    summary.statistics.seconds["total"] = perf_counter() - start
    return summary


def _reuse_features(writer: StoreWriter, units: list[PlannedUnit]) -> None:
    """Commits each unit of which only pairs or labels have changed, with the features of its old shard."""
    for number in writer.pending:
        old = writer.features_of(writer.plan.units[number])
        if old is not None:
            writer.commit(number, assemble_from_features(units[number], old))


def _compute_pending(
    writer: StoreWriter,
    units: list[PlannedUnit],
    config: ExtractionConfig,
    loaded: LoadedBackbone | None,
    statistics: JobStatistics,
) -> None:
    """Computes and commits all pending units; stops as soon as too many items are skipped."""
    pending = {number: units[number] for number in writer.pending}
    if pending:
        crops = sum(len(unit.tables.box) for unit in pending.values())
        _log.info("Extracting %s crops into %s", f"{crops:,}", writer.paths.root)
        for number, shard in stream_shards(pending, config, loaded, statistics):
            start = perf_counter()
            if config.on_error == "fail":
                _fail_on_skipped(shard.skipped)
            writer.commit(number, shard)
            statistics.seconds["write"] += perf_counter() - start
            check_skip_limit(count_skipped_in_store(writer.done.values()), units, config.max_skipped)
    check_skip_limit(count_skipped_in_store(writer.done.values()), units, config.max_skipped)


def _has_unusable_images(unit: Unit) -> bool:
    """Whether reading the unit's images again could help. (Items with unusable annotations would be skipped again.)"""
    return any(reason.startswith("image_") for reasons in unit.skipped.values() for reason in reasons)


def _fail_on_skipped(skipped: tuple[Skipped, ...]) -> None:
    """Raises DataError for the first skipped item, if there is one."""
    if skipped:
        first = skipped[0]
        where = " ".join(part for part in (first.scene, first.frame, first.kind, first.item) if part)
        raise DataError(f"{where} cannot be used ({first.reason}); fix it, or use --on_error skip")
