"""The extraction job: plans units, crops and forwards their persons, and writes the store. A second run resumes."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from configs.errors import DataError, StoreError
from configs.extraction_config import ExtractionConfig
from configs.process.failures import how_to_continue
from extract.annotations.jrdb import scene_digests, scene_names
from extract.backbones.precision import faster_precision
from extract.backbones.weights import NONE, LoadedBackbone, load_backbone
from extract.device import pick_device
from extract.images.identity import ImageIdentities
from extract.int8 import calibrate, known_ranges
from extract.recipe import crop_recipe, feature_recipe
from extract.units.plan import DEFAULT_UNIT_SIZE, PlannedUnit, UnitSize, manifest_entry, plan_units
from extract.units.skips import check_skip_limit, count_planned, expectation, ledger_before_reading
from extract.units.statistics import JobStatistics
from extract.units.stream import stream_shards
from store.find import STORES, find_store, is_covered, is_finished, stores_with_recipe
from store.format.ledger import MISSING_PARTNER, Ledger
from store.format.manifest import Manifest, Selection, Unit
from store.format.paths import StorePaths
from store.format.recipe import CROPS, INT8
from store.format.shard import Skipped
from store.open import is_packed, is_store, read_complete_manifest, read_manifest
from store.outputs import claim_folder
from store.ownership import STORE, is_unused
from store.reader import store_info
from store.rows import StoredRows
from store.writer import StoreWriter, open_for_writing

_log = logging.getLogger("stage2")
Check = Callable[[list[PlannedUnit]], None]  # raises if a job with this plan would be in vain
_KEPT = "during the extraction; finished units are kept: run the same command again to continue"


@dataclass
class ExtractionSummary:
    """The store that a job wrote, and what the job had to compute for it."""

    store: Path
    on_cpu: bool
    faster: str = ""  # which other precision would be faster here
    units_reused: int = 0
    statistics: JobStatistics = field(default_factory=JobStatistics)
    crops: "ExtractionSummary | None" = None  # of the store of crops inside this one

    def to_dict(self) -> dict[str, Any]:
        """Returns the store's description and the job's statistics as plain values for JSON."""
        values = store_info(self.store) | {"units_reused": self.units_reused} | vars(self.statistics)
        values |= {"bound": self.statistics.bottleneck(self.on_cpu), "faster": self.faster}
        return values if self.crops is None else values | {"crops": self.crops.to_dict()}


def extract(config: ExtractionConfig) -> ExtractionSummary:
    """Extracts the features that `config` describes, resumes an unfinished extraction, or reuses a finished one.

    Raises:
        DataError, WeightsError, DeviceError: an input cannot be used.
        TooManySkippedError: more items are unusable than `config.max_skipped` allows.
        MismatchError, LockedError, StoreError, StorageError: the store cannot be written.
        ConfigError: a new store would be inside the data or inside another store.
    """
    scene_names(Path(config.data_path))  # before weights are downloaded
    return extract_with(config, load_backbone(config.backbone, config.weights))


def extract_with(
    config: ExtractionConfig,
    loaded: LoadedBackbone,
    *,
    unit_size: UnitSize = DEFAULT_UNIT_SIZE,
    check: Check | None = None,
) -> ExtractionSummary:
    """`extract` with a backbone that is already loaded.

    Args:
        check: called with the plan before anything is computed or written.

    Raises:
        Stage2Error: as `extract`, or from `check`.
    """
    _log.info("Reading the annotations and images in %s", config.data_path)
    identities = ImageIdentities([Path(config.store)] if config.store else STORES.glob("*.store"))
    if config.precision == INT8:
        loaded = _prepare_int8(config, loaded, identities)
    path, requested = _find_or_name(config, loaded, identities)
    if is_unused(StorePaths(path).lock, STORE):  # a new store
        claim_folder(path, inputs=(Path(config.data_path, name) for name in ("images", "labels")))
    if config.crops and is_packed(path):
        raise StoreError(f"{path} is a packed file, which cannot contain crops; name a folder with --store")
    summary = _extract_into(path, requested, config, loaded, unit_size, identities, check)
    if config.crops:
        config = crop_config(config, read_complete_manifest(path).selection)
        crops = requested_manifest(config, None, identities)
        summary.crops = _extract_into(path / CROPS, crops, config, None, unit_size, identities)
    identities.save(path)
    return summary


def _prepare_int8(config: ExtractionConfig, loaded: LoadedBackbone, identities: ImageIdentities) -> LoadedBackbone:
    """Returns `loaded` with the activation ranges of the store that the job continues, or measured on its own crops."""
    data_path = Path(config.data_path)
    loaded = known_ranges(config, loaded, scene_digests(data_path, identities))
    if loaded.activation_ranges and not config.retry_skipped and is_covered(*_find_or_name(config, loaded, identities)):
        return loaded
    units = plan_units(data_path, Selection(config.frame_interval, config.persons), identities=identities)
    return calibrate(units, config, loaded)


def _find_or_name(
    config: ExtractionConfig, loaded: LoadedBackbone, identities: ImageIdentities
) -> tuple[Path, Manifest]:
    """Returns the store to write or reuse, and the manifest that it must have. The cache may only save work:

    if no store fits the data as the cache knows it, the images are read.
    """
    requested = requested_manifest(config, loaded, identities)
    path = Path(config.store) if config.store else find_store(requested)
    if is_covered(path, requested):
        return path, requested
    identities.distrust_cache()
    requested = requested_manifest(config, loaded, identities)
    return Path(config.store) if config.store else find_store(requested), requested


def crop_config(config: ExtractionConfig, selection: Selection) -> ExtractionConfig:
    """Returns the configuration for the crops of a store with `selection`; storing crops needs no GPU."""
    interval, persons = selection.frame_interval, selection.persons
    return replace(config, frame_interval=interval, persons=persons, views=1, device="cpu", precision="float32")


def requested_manifest(
    config: ExtractionConfig, loaded: LoadedBackbone | None, identities: ImageIdentities | None = None
) -> Manifest:
    """Returns the manifest, without units, of the store that `config` describes.

    Args:
        loaded: the backbone; None for a store of crops.
        identities: of the images, if some are known already; otherwise every image is read.

    Raises:
        DataError: the data cannot be read.
    """
    if loaded is None:
        recipe, source = crop_recipe(config.crop_size, config.panorama), NONE
    else:
        recipe = feature_recipe(loaded, config.crop_size, config.dtype, config.views, config.precision, config.panorama)
        source = loaded.source
    selection = Selection(config.frame_interval, config.persons)
    int8 = loaded.int8 if loaded is not None and config.precision == INT8 else None
    return Manifest(recipe, selection, scene_digests(Path(config.data_path), identities), (), source, int8=int8)


def plan_manifest(
    config: ExtractionConfig, requested: Manifest, unit_size: UnitSize, identities: ImageIdentities
) -> tuple[list[PlannedUnit], Manifest]:
    """Plans the units of `requested`; returns them and the manifest that lists them. Raises DataError.

    Every image is read, unless `identities` has read it already: what is computed never depends on a cache.
    """
    identities.distrust_cache()
    data_path, crops = Path(config.data_path), unit_size.crops_for(requested.recipe)
    units = plan_units(data_path, requested.selection, crops=crops, identities=identities)
    entries = tuple(manifest_entry(unit, requested.recipe) for unit in units)
    frames, people = sum(unit.frames for unit in units), sum(unit.persons for unit in units)
    _log.info("Planned %s people in %s frames of %d scenes", f"{people:,}", f"{frames:,}", len(requested.scenes))
    return units, replace(requested, scenes=scene_digests(data_path, identities), units=entries)


def _extract_into(
    path: Path,
    requested: Manifest,
    config: ExtractionConfig,
    loaded: LoadedBackbone | None,
    unit_size: UnitSize,
    identities: ImageIdentities,
    check: Check | None = None,
) -> ExtractionSummary:
    """Writes the store at `path` unless it is finished; `loaded` is None for a store of crops."""
    start = perf_counter()
    on_cpu = pick_device(config.device).type == "cpu"
    faster = "" if loaded is None else faster_precision(config.precision, config.backbone, on_cpu)
    summary = ExtractionSummary(path, on_cpu, faster)
    if not config.retry_skipped and is_finished(path, requested):
        summary.units_reused = int(store_info(path)["units"])
    else:
        units, plan = plan_manifest(config, requested, unit_size, identities)
        if check is not None:
            check(units)
        if config.on_error == "fail":
            for unit in units:
                _fail_on_skipped(unit.skipped)
        check_skip_limit(ledger_before_reading(units), config.max_skipped)
        summary.statistics.seconds["plan"] = perf_counter() - start
        update = config.update or (config.retry_skipped and _has_only_repaired_images(path, plan))
        writing = open_for_writing(path, plan, update, config.remove_missing)
        with how_to_continue(lambda: _KEPT), writing as writer:
            if config.retry_skipped:
                writer.forget([number for number, unit in writer.done.items() if _has_unusable_images(unit)])
            summary.units_reused = len(writer.done)
            _compute_pending(writer, units, config, loaded, summary.statistics)
            writer.finish()
    summary.statistics.seconds["total"] = perf_counter() - start
    return summary


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
        persons = sum(len(unit.tables.box) for unit in pending.values())
        _log.info("Extracting the features of %s people into %s", f"{persons:,}", writer.paths.root)
        stored = StoredRows(writer.plan.recipe)
        for store in [writer.paths.root, *stores_with_recipe(writer.plan.recipe)]:
            stored.add(StorePaths(store).shard_files())
        for number, shard in stream_shards(pending, config, loaded, statistics, stored):
            start = perf_counter()
            if config.on_error == "fail":
                _fail_on_skipped(shard.skipped)
            writer.commit(number, shard)
            statistics.seconds["write"] += perf_counter() - start
            _check_skip_limit(writer, units, config)
    _check_skip_limit(writer, units, config)


def _check_skip_limit(writer: StoreWriter, units: list[PlannedUnit], config: ExtractionConfig) -> None:
    """Raises TooManySkippedError if the finished units have skipped too much of the whole job."""
    ledger = Ledger.of_units(writer.done.values(), writer.skipped_items())
    check_skip_limit(ledger, config.max_skipped, count_planned(units))


def _has_only_repaired_images(path: Path, plan: Manifest) -> bool:
    """Whether the data differs from that of the store at `path` only in images of scenes with unusable images."""
    if not is_store(path):
        return False
    old = read_manifest(path)
    unusable = {unit.scene for unit in old.units if _has_unusable_images(unit)}
    same_scenes = old.scenes.keys() == plan.scenes.keys()
    return same_scenes and all(
        scene == plan.scenes[name] or (name in unusable and scene.labels == plan.scenes[name].labels)
        for name, scene in old.scenes.items()
    )


def _has_unusable_images(unit: Unit) -> bool:
    """Whether reading the unit's images again could help. (Items with unusable annotations would be skipped again.)"""
    return any(reason.startswith("image_") for reasons in unit.skipped.values() for reason in reasons)


def _fail_on_skipped(skipped: tuple[Skipped, ...]) -> None:
    """Raises DataError for the first skipped item, if there is one; a pair without an annotated partner is normal."""
    first = next((item for item in skipped if item.reason != MISSING_PARTNER), None)
    if first is not None:
        expected = expectation(first.reason)
        reason = f"{first.reason}: expected {expected}" if expected else first.reason
        raise DataError(f"{first.text()} cannot be used ({reason}); fix it, or use --on_error skip")
