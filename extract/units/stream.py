"""Computes the shards of planned units as a stream.

Threads prepare frames ahead, their crops fill batches, and features are returned in order. Batches span the borders
between units, so no worker waits there; a unit's shard is complete once its last batch is.
"""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from configs.errors import DataError
from configs.extraction_config import ExtractionConfig
from configs.panorama import describe, edges_touch
from extract.backbones.forward import frozen_forward
from extract.backbones.int8 import int8_forward
from extract.backbones.weights import LoadedBackbone
from extract.device import explain_out_of_memory, pick_device
from extract.units.assemble import assemble_shard
from extract.units.collect import BatchSize, FeatureCollector, PixelCollector
from extract.units.plan import PlannedUnit
from extract.units.prepare import PreparedFrame, prepare_frame
from extract.units.statistics import JobStatistics
from extract.units.workers import Workers, open_workers, read_ahead
from store.format.recipe import INT8
from store.format.shard import Shard
from store.rows import KnownRows, StoredRows, nothing_known
from store.tables import Mask, Visual

_log = logging.getLogger("stage2")
Item = TypeVar("Item")
Collectors = Sequence[FeatureCollector | PixelCollector]  # one for each view


def stream_shards(
    units: dict[int, PlannedUnit],
    config: ExtractionConfig,
    loaded: LoadedBackbone | None,
    statistics: JobStatistics,
    stored: StoredRows | None = None,
) -> Iterator[tuple[int, Shard]]:
    """Yields (number, shard) for each of the numbered units, in order.

    Args:
        loaded: the backbone; None to store the crops themselves.
        statistics: updated while the job runs.
        stored: features that need not be computed again.

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
        for unit, frames in _frames_by_unit(units, config, statistics, workers, stored):
            for frame in frames:
                _record_frame(frame, config, statistics)
                missing = unit.add(frame)
                for crops, collector in zip(_crops_of_views(frame.crops, missing), collectors, strict=True):
                    collector.add(crops)
                bar.update(len(frame.outside))
            queue.append(unit)
            while queue and queue[0].is_ready(collectors):
                yield _take_shard(queue.popleft(), collectors, dim, config.panorama, statistics)
        for collector in collectors:
            collector.flush()
        while queue:
            yield _take_shard(queue.popleft(), collectors, dim, config.panorama, statistics)
        statistics.batch_size = size.chosen
        _log.info("%s", describe(config.panorama, statistics.panoramas, statistics.frames_decoded))


@dataclass(eq=False)
class _QueuedUnit:
    """A unit whose crops were added to the collectors and whose features may not be complete yet."""

    number: int
    plan: PlannedUnit
    known: KnownRows
    frames: list[PreparedFrame] = field(default_factory=list)  # without pixels
    missing: list[Mask] = field(default_factory=list)  # for each frame (V, P): persons whose features are computed

    def add(self, frame: PreparedFrame) -> Mask:
        """Adds the next frame; returns for each view which of its persons' features are computed, (V, P)."""
        rows = self.plan.rows_of(len(self.frames))
        self.missing.append(~self.known.known[:, rows] & ~frame.outside)
        self.frames.append(replace(frame, crops=frame.crops[:0].clone()))  # frees the pixels
        return self.missing[-1]

    def rows(self, view: int) -> int:
        """The number of persons whose features are computed."""
        return sum(int(missing[view].sum()) for missing in self.missing)

    def is_ready(self, collectors: Collectors) -> bool:
        """Whether all of the unit's features are computed."""
        return all(collector.ready >= self.rows(view) for view, collector in enumerate(collectors))

    def features(self, view: int, computed: Visual) -> Visual:
        """(N, D) the features of the persons inside their image: the known ones and `computed`, in order."""
        known = self.known.known[view]
        if not known.any():
            return computed
        rows: Visual = np.empty((len(known), computed.shape[1]), computed.dtype)
        rows[known] = self.known.visual[view]
        rows[np.concatenate([missing[view] for missing in self.missing])] = computed
        outside = np.concatenate([frame.outside for frame in self.frames])
        stored: Visual = rows[~outside]
        return stored


def _take_shard(
    unit: _QueuedUnit, collectors: Collectors, dim: int, panorama: str, statistics: JobStatistics
) -> tuple[int, Shard]:
    visual = [unit.features(view, collector.take(unit.rows(view), dim)) for view, collector in enumerate(collectors)]
    statistics.crops_forwarded = sum(collector.forwarded for collector in collectors)
    statistics.rows_reused += sum(len(rows) - unit.rows(view) for view, rows in enumerate(visual))
    statistics.seconds["forward"] = sum(collector.seconds for collector in collectors)
    flipped = visual[1] if len(visual) > 1 else None
    return unit.number, assemble_shard(unit.plan, unit.frames, visual[0], flipped, panorama)


def _crops_of_views(crops: Tensor, missing: Mask) -> Iterator[Tensor]:
    """Yields for each view the crops of the persons whose features are computed; those of the second are mirrored.

    Args:
        crops: of all persons whose features are missing in at least one view.
        missing: (V, P) for each view, which persons' features are missing.
    """
    for view, persons in enumerate(missing[:, missing.any(axis=0)]):
        part = crops if persons.all() else crops[torch.from_numpy(persons)]
        yield part.flip(-1) if view else part


def _open_collectors(
    config: ExtractionConfig, loaded: LoadedBackbone | None, size: BatchSize, workers: Workers
) -> Collectors:
    """Returns one collector for each view."""
    if loaded is None:
        return [PixelCollector()]
    if config.precision == INT8:
        forward = int8_forward(loaded.backbone, workers.device, loaded.activation_ranges)
    else:
        forward = frozen_forward(loaded.backbone, config.crop_size, workers.device, config.precision)
    return [FeatureCollector(forward, size, config.crop_size, config.dtype, workers) for _ in range(config.views)]


def _frames_by_unit(
    units: dict[int, PlannedUnit],
    config: ExtractionConfig,
    statistics: JobStatistics,
    workers: Workers,
    stored: StoredRows | None,
) -> Iterator[tuple[_QueuedUnit, Iterator[PreparedFrame]]]:
    """Yields each unit and its prepared frames, in order; frames are read ahead across units."""
    folder, size, panorama = Path(config.data_path), config.crop_size, config.panorama

    def prepare(item: tuple[_QueuedUnit, int]) -> tuple[_QueuedUnit, PreparedFrame]:
        unit, frame = item
        return unit, prepare_frame(folder, unit.plan, frame, crop_size=size, panorama=panorama, known=unit.known)

    frames = read_ahead(prepare, _plan_frames(units, config, stored), workers.readers, workers.frames_ahead)
    for unit, group in groupby(_record_waiting(frames, statistics), key=lambda item: item[0]):
        yield unit, (frame for _, frame in group)


def _plan_frames(
    units: dict[int, PlannedUnit], config: ExtractionConfig, stored: StoredRows | None
) -> Iterator[tuple[_QueuedUnit, int]]:
    """Yields each frame row of each unit, with the features that are stored already."""
    for number, plan in units.items():
        if stored is None or plan.image_ids is None:
            known = nothing_known(plan.tables, config.views)
        else:
            known = stored.find(plan.tables, plan.image_ids.tolist())
        unit = _QueuedUnit(number, plan, known)
        for frame in range(plan.frames):
            yield unit, frame


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
    if not any(frame.seconds):  # the features of all of its persons were stored already
        return
    statistics.frames_decoded += 1
    statistics.panoramas += bool(edges_touch(config.panorama, *frame.size))
    for stage, seconds in zip(("read", "decode", "crop"), frame.seconds, strict=True):
        statistics.seconds[stage] += seconds
