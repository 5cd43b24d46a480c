"""Planned units in, shards out: frames are read ahead by threads, crops fill batches, rows come out in order.

Batches run on over the borders of units, so that nothing waits there: a unit's shard comes out once its last rows do.
"""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from tqdm import tqdm

from configs.errors import DataError
from configs.extraction_config import ExtractionConfig
from extract.backbones.forward import frozen_forward
from extract.backbones.weights import LoadedBackbone
from extract.device import full_memory_said, pick_device
from extract.units.assemble import assemble
from extract.units.collect import BatchSize, FeatureCollector, PixelCollector
from extract.units.plan import PlannedUnit
from extract.units.prepare import PreparedFrame, prepare_frame
from extract.units.workers import Lanes, open_lanes, read_ahead
from store.format.shard import Shard

_log = logging.getLogger("stage2")
_STAGES = ("plan", "read", "decode", "crop", "wait", "forward", "write", "total")
Item = TypeVar("Item")


@dataclass
class Tally:
    """What was done so far; `seconds` of reading, decoding and cropping and forwarding are summed over the threads."""

    frames_decoded: int = 0
    crops_forwarded: int = 0
    batch_size: int = 0  # the one that was chosen; 0 where the job was too short to choose
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_STAGES, 0.0))


def stream_shards(
    units: dict[int, PlannedUnit], config: ExtractionConfig, loaded: LoadedBackbone | None, tally: Tally
) -> Iterator[tuple[int, Shard]]:
    """Reads, crops and forwards the numbered units, one after another, and yields each one's shard.

    Args:
        loaded: the backbone; None where the crops themselves are stored.

    Raises:
        DataError: an image cannot be used and `config.on_error` is "fail", or features do not fit the storage type.
        DeviceError: the device is missing, or its memory full.
    """
    device = pick_device(config.device)
    persons = sum(len(unit.tables.box) for unit in units.values())
    size = BatchSize(config.batch_size, device)
    with (
        full_memory_said(size.most),
        open_lanes(device, config.num_workers) as lanes,
        tqdm(total=persons, unit="crop", desc="extract", disable=None, smoothing=0.05) as bar,
    ):
        views = _collectors(config, loaded, size, lanes)
        dim = 3 * config.crop_size**2 if loaded is None else loaded.backbone.out_dim
        fed: deque[_Fed] = deque()
        for number, frames in _frames_by_unit(units, config, tally, lanes):
            unit = _Fed(number)
            for frame in frames:
                _count(frame, config, tally)
                for view, collector in enumerate(views):
                    collector.add(frame.crops.flip(-1) if view else frame.crops)
                unit.rows += len(frame.crops)
                unit.frames.append(replace(frame, crops=frame.crops[:0].clone()))  # lets go of the pixels
                bar.update(len(frame.unseen))
            fed.append(unit)
            while fed and all(collector.ready >= fed[0].rows for collector in views):
                yield _shard(fed.popleft(), units, views, dim, tally)
        for collector in views:
            collector.flush()
        while fed:
            yield _shard(fed.popleft(), units, views, dim, tally)
        tally.batch_size = size.chosen


@dataclass
class _Fed:
    """A unit whose crops were handed on; the last ones are forwarded while the next unit's are prepared."""

    number: int
    rows: int = 0
    frames: list[PreparedFrame] = field(default_factory=list)


def _shard(
    fed: _Fed, units: dict[int, PlannedUnit], views: Sequence[FeatureCollector | PixelCollector], dim: int, tally: Tally
) -> tuple[int, Shard]:
    features = [collector.take(fed.rows, dim) for collector in views]
    tally.crops_forwarded = sum(collector.forwarded for collector in views)
    tally.seconds["forward"] = sum(collector.seconds for collector in views)
    return fed.number, assemble(units[fed.number], fed.frames, features[0], features[1] if len(features) > 1 else None)


def _collectors(
    config: ExtractionConfig, loaded: LoadedBackbone | None, size: BatchSize, lanes: Lanes
) -> Sequence[FeatureCollector | PixelCollector]:
    """What makes rows of crops, one for each view."""
    if loaded is None:
        return [PixelCollector()]
    forward = frozen_forward(loaded.backbone, config.crop_size, lanes.device, config.precision)
    return [FeatureCollector(forward, size, config.crop_size, config.dtype, lanes) for _ in range(config.views)]


def _frames_by_unit(
    units: dict[int, PlannedUnit], config: ExtractionConfig, tally: Tally, lanes: Lanes
) -> Iterator[tuple[int, Iterator[PreparedFrame]]]:
    """The prepared frames of each unit, in order, read ahead across the units' borders."""
    prepare = partial(prepare_frame, Path(config.data_path), crop_size=config.crop_size)
    keys = [(number, frame) for number, unit in units.items() for frame in range(len(unit.tables.frame_name))]
    ahead = read_ahead(lambda key: (key[0], prepare(units[key[0]], key[1])), keys, lanes.readers, lanes.ahead)
    for number, group in groupby(_timed(ahead, tally), key=lambda item: item[0]):
        yield number, (frame for _, frame in group)


def _timed(items: Iterator[Item], tally: Tally) -> Iterator[Item]:
    """The items; how long they had to be waited for goes to the tally."""
    while True:
        began = perf_counter()
        try:
            item = next(items)
        except StopIteration:
            return
        finally:
            tally.seconds["wait"] += perf_counter() - began
        yield item


def _count(frame: PreparedFrame, config: ExtractionConfig, tally: Tally) -> None:
    """Counts a frame; one that cannot be used is said so, or stops the job where `on_error` is "fail"."""
    if frame.reason:
        if config.on_error == "fail":
            raise DataError(f"{frame.message}; mend it, or give --on_error skip")
        _log.warning("skipped a frame: %s (%s)", frame.message, frame.reason)
        return
    tally.frames_decoded += 1
    for stage, seconds in zip(("read", "decode", "crop"), frame.seconds, strict=True):
        tally.seconds[stage] += seconds
