"""The batch feature extraction job: data -> plan -> crops -> features -> store. Run again, it resumes."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Any

from tqdm import tqdm

from configs.errors import DataError
from configs.extraction_config import ExtractionConfig
from extract.assemble import assemble
from extract.batcher import FeatureCollector
from extract.device import pick_device
from extract.forward import frozen_forward
from extract.jrdb import scene_digests
from extract.limits import Reasons, check_limit, known_skips, stored_skips
from extract.plan import PlannedUnit, describe, make_recipe, plan_units
from extract.prepare import PreparedFrame, prepare_frame
from extract.read_ahead import read_ahead
from extract.reuse import relabel
from extract.weights import LoadedBackbone, load_backbone
from store.find import store_for
from store.manifest import Manifest, Selection
from store.reader import store_info
from store.writer import StoreWriter, finished, open_for_writing

_log = logging.getLogger("stage2")
_STAGES = ("plan", "read", "decode", "crop", "wait", "forward", "write", "total")


@dataclass
class Summary:
    """What a job did; `seconds` of reading, decoding and cropping are summed over the worker threads."""

    store: Path
    frames_decoded: int = 0
    crops_forwarded: int = 0
    units_reused: int = 0
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(
            ("plan", "read", "decode", "crop", "wait", "forward", "write", "total"), 0.0
        )
    )

    def to_dict(self) -> dict[str, Any]:
        """The store's description with what the job did to it, for JSON."""
        mine = vars(self) | {"store": str(self.store)}
        return store_info(self.store) | mine


def extract(config: ExtractionConfig) -> Summary:
    """Runs, resumes or finds finished the extraction that `config` describes; returns what was done.

    Raises:
        DataError, WeightsError, DeviceError: the input cannot be used.
        TooManySkippedError: more is unusable than `config.max_skipped` allows.
        MismatchError, LockedError, StoreError, StorageError: the store cannot be written.
    """
    loaded = load_backbone(config.backbone, config.weights)
    return extract_with(config, loaded)


def extract_with(config: ExtractionConfig, loaded: LoadedBackbone) -> Summary:
    """`extract` with a backbone that is already loaded. Raises as `extract`."""
    began = perf_counter()
    data_path = Path(config.data_path)
    wanted = wanted_store(config, loaded)
    path = Path(config.store) if config.store else store_for(wanted)
    summary = Summary(path)
    if finished(path, wanted):
        summary.units_reused = int(store_info(path)["units"])
    else:
        units = plan_units(data_path, wanted.selection)
        plan = replace(wanted, units=tuple(describe(unit, wanted.recipe) for unit in units))
        check_limit(known_skips(units), plan.units, config.max_skipped)
        summary.seconds["plan"] = perf_counter() - began
        with open_for_writing(path, plan, config.update) as writer:
            _fill(writer, units, config, loaded, summary)
            writer.finish()
    summary.seconds["total"] = perf_counter() - began
    return summary


def wanted_store(config: ExtractionConfig, loaded: LoadedBackbone) -> Manifest:
    """The manifest, its units not planned yet, of the store that `config` asks for. Raises DataError."""
    recipe = make_recipe(loaded, config.crop_size, config.dtype, config.views, config.precision)
    selection = Selection(config.frame_interval, config.persons)
    return Manifest(recipe, selection, scene_digests(Path(config.data_path)), (), loaded.source)


def _fill(
    writer: StoreWriter, units: list[PlannedUnit], config: ExtractionConfig, loaded: LoadedBackbone, summary: Summary
) -> None:
    """Commits every unit that is not there yet."""
    summary.units_reused = len(writer.done)
    for number in writer.pending:
        old = writer.features_of(writer.plan.units[number])
        if old is not None:
            writer.commit(number, relabel(units[number], old))
    numbers = writer.pending
    if numbers:
        _compute(writer, {number: units[number] for number in numbers}, config, loaded, summary)
    check_limit(stored_skips(writer.done.values()), writer.plan.units, config.max_skipped)


def _compute(
    writer: StoreWriter,
    units: dict[int, PlannedUnit],
    config: ExtractionConfig,
    loaded: LoadedBackbone,
    summary: Summary,
) -> None:
    """Reads ahead, forwards and commits the units, one after another."""
    device = pick_device(config.device)
    forward = frozen_forward(loaded.backbone, config.batch_size, config.crop_size, device, config.precision)
    plain, flipped = (FeatureCollector(forward, config.batch_size, config.crop_size, config.dtype) for _ in range(2))
    dim = loaded.backbone.out_dim
    persons = sum(len(unit.tables.box) for unit in units.values())
    with tqdm(total=persons, unit="crop", desc="extract", disable=None, smoothing=0.05) as bar:
        for number, frames in _frames_by_unit(units, config, summary):
            outcomes = []
            for frame in frames:
                _report(frame, config, summary)
                plain.add(frame.crops)
                if config.views == 2:
                    flipped.add(frame.crops.flip(-1))
                bar.update(len(frame.unseen))
                outcomes.append(replace(frame, crops=frame.crops[:0]))  # drops the pixels
            mirrored = flipped.take(dim) if config.views == 2 else None
            shard = assemble(units[number], outcomes, plain.take(dim), mirrored)
            began = perf_counter()
            writer.commit(number, shard)
            summary.seconds["write"] += perf_counter() - began
            so_far: Reasons = stored_skips(writer.done.values())
            check_limit(so_far, writer.plan.units, config.max_skipped)
    summary.crops_forwarded = plain.forwarded + flipped.forwarded
    summary.seconds["forward"] = plain.seconds + flipped.seconds


def _frames_by_unit(
    units: dict[int, PlannedUnit], config: ExtractionConfig, summary: Summary
) -> Iterator[tuple[int, Iterator[PreparedFrame]]]:
    """The prepared frames of each unit, in order, read ahead across the units' borders."""
    prepare = partial(prepare_frame, Path(config.data_path), crop_size=config.crop_size)
    keys = [(number, frame) for number, unit in units.items() for frame in range(len(unit.tables.frame_name))]
    ahead = read_ahead(
        lambda key: (key[0], prepare(units[key[0]], key[1])), keys, config.num_workers, 2 * config.num_workers + 2
    )
    for number, group in groupby(_timed(ahead, summary), key=lambda item: item[0]):
        yield number, (frame for _, frame in group)


def _timed(items: Iterator[Any], summary: Summary) -> Iterator[Any]:
    """The items; how long they had to be waited for goes to the summary."""
    while True:
        began = perf_counter()
        item = next(items, None)
        summary.seconds["wait"] += perf_counter() - began
        if item is None:
            return
        yield item


def _report(frame: PreparedFrame, config: ExtractionConfig, summary: Summary) -> None:
    """Counts a frame; one that cannot be used is said so, or stops the job where `on_error` is "fail"."""
    if frame.reason:
        if config.on_error == "fail":
            raise DataError(f"{frame.message}; mend it, or give --on_error skip")
        _log.warning("skipped a frame: %s (%s)", frame.message, frame.reason)
        return
    summary.frames_decoded += 1
    for stage, seconds in zip(("read", "decode", "crop"), frame.seconds, strict=True):
        summary.seconds[stage] += seconds
