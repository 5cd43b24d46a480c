"""The batch feature extraction job: data -> plan -> crops -> features -> store. Run again, it resumes."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from configs.errors import DataError, StoreError
from configs.extraction_config import ExtractionConfig
from extract.annotations.jrdb import scene_digests
from extract.backbones.weights import NONE, LoadedBackbone, load_backbone
from extract.device import pick_device
from extract.units.assemble import relabel
from extract.units.plan import (
    PlannedUnit,
    check_limit,
    crop_recipe,
    describe,
    known_skips,
    make_recipe,
    plan_units,
    planned_items,
    stored_skips,
    unit_crops,
)
from extract.units.stream import Tally, stream_shards
from store.format.manifest import Manifest, Selection, Unit, read_complete_manifest, store_for
from store.format.recipe import CROPS
from store.format.shard import Skipped
from store.reader import store_info
from store.writer import StoreWriter, finished, open_for_writing

_log = logging.getLogger("stage2")


@dataclass
class Summary:
    """What a job did to which store."""

    store: Path
    on_cpu: bool
    units_reused: int = 0
    tally: Tally = field(default_factory=Tally)
    crops: "Summary | None" = None  # of the store of crops

    def to_dict(self) -> dict[str, Any]:
        """The store's description with what the job did to it, for JSON."""
        found = store_info(self.store) | {"units_reused": self.units_reused} | vars(self.tally)
        found |= {"bound": bound(self.tally.seconds, self.on_cpu)}
        return found if self.crops is None else found | {"crops": self.crops.to_dict()}


def extract(config: ExtractionConfig) -> Summary:
    """Runs, resumes or finds finished the extraction that `config` describes; returns what was done.

    Raises:
        DataError, WeightsError, DeviceError: the input cannot be used.
        TooManySkippedError: more is unusable than `config.max_skipped` allows.
        MismatchError, LockedError, StoreError, StorageError: the store cannot be written.
    """
    return extract_with(config, load_backbone(config.backbone, config.weights))


def extract_with(config: ExtractionConfig, loaded: LoadedBackbone) -> Summary:
    """`extract` with a backbone that is already loaded. Raises as `extract`."""
    wanted = wanted_store(config, loaded)
    path = Path(config.store) if config.store else store_for(wanted)
    if config.crops and path.is_file():
        raise StoreError(f"{path} is one packed file, which has no room for crops; name a folder with --store")
    summary = _extract_into(path, wanted, config, loaded)
    if config.crops:
        config = crops_config(config, read_complete_manifest(path).selection)
        summary.crops = _extract_into(path / CROPS, wanted_store(config, None), config, None)
    return summary


def crops_config(config: ExtractionConfig, selection: Selection) -> ExtractionConfig:
    """The extraction of the crops that belong to a store of `selection`: no device takes part in it."""
    interval, persons = selection.frame_interval, selection.persons
    return replace(config, frame_interval=interval, persons=persons, views=1, device="cpu", precision="float32")


def _extract_into(path: Path, wanted: Manifest, config: ExtractionConfig, loaded: LoadedBackbone | None) -> Summary:
    """Fills the store at `path`, or finds it finished; `loaded` is None for a store of crops."""
    began = perf_counter()
    summary = Summary(path, pick_device(config.device).type == "cpu")
    if not config.retry_skipped and finished(summary.store, wanted):
        summary.units_reused = int(store_info(summary.store)["units"])
    else:
        units, plan = planned_store(config, wanted)
        if config.on_error == "fail":
            for unit in units:
                _refuse_skipped(unit.skipped)
        check_limit(known_skips(units), planned_items(units), config.max_skipped)
        summary.tally.seconds["plan"] = perf_counter() - began
        with open_for_writing(summary.store, plan, config.update) as writer:
            if config.retry_skipped:
                writer.forget([number for number, unit in writer.done.items() if _may_be_mended(unit)])
            _fill(writer, units, config, loaded, summary)
            writer.finish()
    summary.tally.seconds["total"] = perf_counter() - began
    return summary


def planned_store(config: ExtractionConfig, wanted: Manifest) -> tuple[list[PlannedUnit], Manifest]:
    """The units that an extraction into `wanted` is made of, and its manifest with them. Raises DataError."""
    units = plan_units(Path(config.data_path), wanted.selection, crops=unit_crops(wanted.recipe))
    return units, replace(wanted, units=tuple(describe(unit, wanted.recipe) for unit in units))


def wanted_store(config: ExtractionConfig, loaded: LoadedBackbone | None) -> Manifest:
    """The manifest, its units not planned yet, of the store that `config` asks for; of crops without a backbone.

    Raises:
        DataError: the data cannot be read.
    """
    if loaded is None:
        recipe, source = crop_recipe(config.crop_size), NONE
    else:
        recipe = make_recipe(loaded, config.crop_size, config.dtype, config.views, config.precision)
        source = loaded.source
    selection = Selection(config.frame_interval, config.persons)
    return Manifest(recipe, selection, scene_digests(Path(config.data_path)), (), source)


def _fill(
    writer: StoreWriter,
    units: list[PlannedUnit],
    config: ExtractionConfig,
    loaded: LoadedBackbone | None,
    summary: Summary,
) -> None:
    """Commits every unit that is not there yet; what can take over features does."""
    summary.units_reused = len(writer.done)
    for number in writer.pending:
        old = writer.features_of(writer.plan.units[number])
        if old is not None:
            writer.commit(number, relabel(units[number], old))
    rest = {number: units[number] for number in writer.pending}
    if rest:
        crops = sum(len(unit.tables.box) for unit in rest.values())
        _log.info("Extracting %s crops into %s", f"{crops:,}", summary.store)
        for number, shard in stream_shards(rest, config, loaded, summary.tally):
            began = perf_counter()
            if config.on_error == "fail":
                _refuse_skipped(shard.skipped)
            writer.commit(number, shard)
            summary.tally.seconds["write"] += perf_counter() - began
            check_limit(stored_skips(writer.done.values()), planned_items(units), config.max_skipped)
    check_limit(stored_skips(writer.done.values()), planned_items(units), config.max_skipped)


def _may_be_mended(unit: Unit) -> bool:
    """Whether reading the same images again could give a unit more: what annotations rule out stays ruled out."""
    return any(reason.startswith("image_") for reasons in unit.skipped.values() for reason in reasons)


def _refuse_skipped(skipped: tuple[Skipped, ...]) -> None:
    """Raises DataError, the first one named, where anything was left out."""
    if skipped:
        first = skipped[0]
        where = " ".join(part for part in (first.scene, first.frame, first.kind, first.item) if part)
        raise DataError(f"{where} cannot be used ({first.reason}); mend it, or give --on_error skip")


WORK = ("read", "decode", "crop", "forward")
_REMEDY = {
    "read": "put the images on a faster disk",
    "decode": "more cores and --num_workers, or a larger --frame_interval",
    "crop": "more cores and --num_workers, or a smaller --crop_size",
    "forward": "a GPU, a smaller --backbone or --crop_size, --persons paired, or a larger --frame_interval",
    "write": "put the store on a faster disk",
    "device": "--precision bfloat16, a larger --batch_size, or a smaller --backbone or --crop_size",
}
_STARVED = 0.2  # share of the time; a device that waits longer than that for its crops is not what bounds the job


def bound(seconds: dict[str, float], on_cpu: bool) -> str:
    """One sentence on the stage that bounds the job, and what to change; "" where nothing was forwarded.

    Args:
        seconds: by stage, as `Tally` has them: "wait", "write" and "total" of the job, the others summed over threads.
        on_cpu: whether the cores forwarded too; else a device did, while the threads read ahead of it.
    """
    if not seconds["forward"]:
        return ""
    if seconds["write"] > seconds["total"] / 2:
        return f"writing takes {seconds['write'] / seconds['total']:.0%} of the time; faster: {_REMEDY['write']}"
    work = {stage: seconds[stage] for stage in (WORK if on_cpu else WORK[:-1])}
    if not on_cpu and seconds["wait"] < _STARVED * seconds["total"]:
        return f"the device is busy, and waits for crops {_share(seconds['wait'], seconds['total'])} of the time; " + (
            f"faster: {_REMEDY['device']}"
        )
    stage = max(work, key=lambda name: work[name])
    return f"{stage} takes {_share(work[stage], sum(work.values()))} of the threads' work; faster: {_REMEDY[stage]}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}"
