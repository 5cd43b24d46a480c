"""Computes the shards of planned units as a stream.

Threads prepare frames ahead, their crops fill batches, and features are returned in order. Batches span the borders
between units, so no worker waits there; a unit's shard is complete once its last batch is.
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
from configs.panorama import describe, edges_touch
from extract.backbones.forward import frozen_forward
from extract.backbones.weights import LoadedBackbone
from extract.device import explain_out_of_memory, pick_device
from extract.units.assemble import assemble_shard
from extract.units.collect import BatchSize, FeatureCollector, PixelCollector
from extract.units.plan import PlannedUnit
from extract.units.prepare import PreparedFrame, prepare_frame
from extract.units.statistics import JobStatistics
from extract.units.workers import Workers, open_workers, read_ahead
from store.format.shard import Shard

_log = logging.getLogger("stage2")
Item = TypeVar("Item")
Collectors = Sequence[FeatureCollector | PixelCollector]  # one for each view


def stream_shards(
    units: dict[int, PlannedUnit], config: ExtractionConfig, loaded: LoadedBackbone | None, statistics: JobStatistics
) -> Iterator[tuple[int, Shard]]:
    """Yields (number, shard) for each of the numbered units, in order.

    Args:
        loaded: the backbone; None to store the crops themselves.
        statistics: updated while the job runs.

    Raises:
        DataError: an image cannot be used and `config.on_error` is "fail", or features do not fit the storage dtype.
        DeviceError: the device does not exist or is out of memory.
    """
    device = pick_device(config.device)
    persons = sum(len(unit.tables.box) for unit in units.values())
    size = BatchSize(config.batch_size, device)
    with (
        explain_out_of_memory(size.largest),
        open_workers(device, config.num_workers) as workers,
        tqdm(total=persons, unit="crop", desc="extract", disable=None, smoothing=0.05) as bar,
    ):
        collectors = _open_collectors(config, loaded, size, workers)
        dim = 3 * config.crop_size**2 if loaded is None else loaded.backbone.out_dim
        queue: deque[_QueuedUnit] = deque()
        for number, frames in _frames_by_unit(units, config, statistics, workers):
            unit = _QueuedUnit(number, units[number])
            for frame in frames:
                _record_frame(frame, config, statistics)
                for view, collector in enumerate(collectors):
                    collector.add(frame.crops.flip(-1) if view else frame.crops)
                unit.rows += len(frame.crops)
                unit.frames.append(replace(frame, crops=frame.crops[:0].clone()))  # frees the pixels
                bar.update(len(frame.outside))
            queue.append(unit)
            while queue and all(collector.ready >= queue[0].rows for collector in collectors):
                yield _take_shard(queue.popleft(), collectors, dim, config.panorama, statistics)
        for collector in collectors:
            collector.flush()
        while queue:
            yield _take_shard(queue.popleft(), collectors, dim, config.panorama, statistics)
        statistics.batch_size = size.chosen
        _log.info("%s", describe(config.panorama, statistics.panoramas, statistics.frames_decoded))


@dataclass
class _QueuedUnit:
    """A unit whose crops were added to the collectors and whose features may not be complete yet."""

    number: int
    plan: PlannedUnit
    rows: int = 0
    frames: list[PreparedFrame] = field(default_factory=list)  # without pixels


def _take_shard(
    unit: _QueuedUnit, collectors: Collectors, dim: int, panorama: str, statistics: JobStatistics
) -> tuple[int, Shard]:
    visual = [collector.take(unit.rows, dim) for collector in collectors]
    statistics.crops_forwarded = sum(collector.forwarded for collector in collectors)
    statistics.seconds["forward"] = sum(collector.seconds for collector in collectors)
    flipped = visual[1] if len(visual) > 1 else None
    return unit.number, assemble_shard(unit.plan, unit.frames, visual[0], flipped, panorama)


def _open_collectors(
    config: ExtractionConfig, loaded: LoadedBackbone | None, size: BatchSize, workers: Workers
) -> Collectors:
    """Returns one collector for each view."""
    if loaded is None:
        return [PixelCollector()]
    forward = frozen_forward(loaded.backbone, config.crop_size, workers.device, config.precision)
    return [FeatureCollector(forward, size, config.crop_size, config.dtype, workers) for _ in range(config.views)]


def _frames_by_unit(
    units: dict[int, PlannedUnit], config: ExtractionConfig, statistics: JobStatistics, workers: Workers
) -> Iterator[tuple[int, Iterator[PreparedFrame]]]:
    """Yields each unit's number and its prepared frames, in order; frames are read ahead across units."""
    prepare = partial(prepare_frame, Path(config.data_path), crop_size=config.crop_size, panorama=config.panorama)
    keys = [(number, frame) for number, unit in units.items() for frame in range(unit.frames)]
    frames = read_ahead(
        lambda key: (key[0], prepare(units[key[0]], key[1])), keys, workers.readers, workers.frames_ahead
    )
    for number, group in groupby(_record_waiting(frames, statistics), key=lambda item: item[0]):
        yield number, (frame for _, frame in group)


def _record_waiting(items: Iterator[Item], statistics: JobStatistics) -> Iterator[Item]:
    """Yields `items` and adds the time spent waiting for them to the statistics."""
    while True:
        start = perf_counter()
        try:
            item = next(items)
        except StopIteration:
            return
        finally:
            statistics.seconds["wait"] += perf_counter() - start
        yield item


def _record_frame(frame: PreparedFrame, config: ExtractionConfig, statistics: JobStatistics) -> None:
    """Counts a frame. An unusable one is logged, or raises DataError if `config.on_error` is "fail"."""
    if frame.reason:
        if config.on_error == "fail":
            raise DataError(f"{frame.message}; restore the image, or use --on_error skip")
        _log.warning("skipped a frame: %s (%s)", frame.message, frame.reason)
        return
    statistics.frames_decoded += 1
    statistics.panoramas += bool(edges_touch(config.panorama, *frame.size))
    for stage, seconds in zip(("read", "decode", "crop"), frame.seconds, strict=True):
        statistics.seconds[stage] += seconds
