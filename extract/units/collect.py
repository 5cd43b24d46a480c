"""Collects crops into batches, has the workers forward them, and returns the features in order."""

from collections import deque
from concurrent.futures import Future
from itertools import cycle
from statistics import median
from time import perf_counter, thread_time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.errors import DataError
from extract.backbones.forward import Forward
from extract.units.workers import Workers
from store.tables import Floats

CPU_SIZES = (16, 8, 32)  # the first is used unless another is clearly faster
GPU_SIZE = 256
TRIALS = 4  # batches of each size that are timed
_CLEARLY_FASTER = 0.95  # largest share of the first size's time


class BatchSize:
    """The size of each batch: fixed, or the fastest of `CPU_SIZES`, timed on the job's own first batches.

    Features do not depend on the size. On the CPU a crop's features have the same bits in each batch. A GPU may round
    differently for another size, so there all batches of a job have one size.
    """

    def __init__(self, fixed: int, device: torch.device) -> None:
        """`fixed` is the size, or 0 to choose one."""
        self._sizes = (fixed,) if fixed else CPU_SIZES if device.type == "cpu" else (GPU_SIZE,)
        self._turns = cycle(self._sizes)
        self._seconds: dict[int, list[float]] = {size: [] for size in self._sizes}
        self.largest = max(self._sizes)
        self.chosen = self._sizes[0] if len(self._sizes) == 1 else 0  # 0: not chosen yet

    def next(self) -> int:
        """Returns the size of the next batch."""
        return self.chosen or next(self._turns)

    def record(self, crops: int, seconds: float) -> None:
        """Records the processor time of a batch; batches that were not full are ignored."""
        if self.chosen or crops not in self._seconds:
            return
        self._seconds[crops].append(seconds / crops)
        if all(len(times) >= TRIALS for times in self._seconds.values()):
            self.chosen = self._fastest()

    def _fastest(self) -> int:
        times = {size: median(seconds) for size, seconds in self._seconds.items()}
        best, first = min(times, key=lambda size: times[size]), self._sizes[0]
        return best if times[best] < _CLEARLY_FASTER * times[first] else first


class FeatureCollector:
    """Takes crops in portions of any size and returns their features in order.

    Batches span frames and units. The workers forward them while the next batch fills; a fixed number of batches waits
    at most, so memory stays bounded.
    """

    def __init__(self, forward: Forward, size: BatchSize, crop_size: int, dtype: str, workers: Workers) -> None:
        self._forward = forward
        self._size = size
        self._dtype = dtype
        self._workers = workers
        self._crop_size = crop_size
        self._batch = self._new_batch()
        self._filled = 0
        self._pending: deque[Future[tuple[Floats, float, float]]] = deque()
        self._features: list[Floats] = []
        self.ready = 0  # rows that can be taken
        self.forwarded = 0  # crops
        self.seconds = 0.0  # of forwarding, summed over the workers

    def add(self, crops: Tensor) -> None:
        """Adds (P, 3, S, S) uint8 crops and submits each full batch."""
        while len(crops):
            room = len(self._batch) - self._filled
            part, crops = crops[:room], crops[room:]
            self._batch[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            if self._filled == len(self._batch):
                self._submit()

    def flush(self) -> None:
        """Submits the last batch and waits until all features are ready."""
        if self._filled:
            self._submit()
        while self._pending:
            self._wait_for_batch()

    def take(self, count: int, dim: int) -> Floats:
        """Returns the (count, dim) features of the next `count` crops; `count` is at most `ready`.

        Raises:
            DataError: a feature is NaN, infinite, or too large for float16 storage.
        """
        rows = np.concatenate([np.empty((0, dim), np.float32), *self._features])
        features, rest = rows[:count], rows[count:].copy()
        self._features = [rest]
        self.ready = len(rest)
        if not np.isfinite(features).all():
            raise DataError("the backbone gives NaN or infinite features; use other weights or --precision float32")
        limit = np.finfo(self._dtype).max
        if features.size and np.abs(features).max() > limit:
            raise DataError(f"features reach {np.abs(features).max():g}, beyond {self._dtype}; use --dtype float32")
        return features.astype(self._dtype)

    def _new_batch(self) -> Tensor:
        shape, pinned = (self._size.next(), 3, self._crop_size, self._crop_size), self._workers.device.type == "cuda"
        return torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last, pin_memory=pinned)

    def _submit(self) -> None:
        self._pending.append(self._workers.forwarders.submit(self._forward_batch, self._batch, self._filled))
        self.forwarded += self._filled
        self._batch, self._filled = self._new_batch(), 0
        if len(self._pending) > 2 * self._workers.parallel_batches:
            self._wait_for_batch()

    def _wait_for_batch(self) -> None:
        features, seconds, processor_seconds = self._pending.popleft().result()
        self._features.append(features)
        self.ready += len(features)
        self.seconds += seconds
        self._size.record(len(features), processor_seconds)

    def _forward_batch(self, batch: Tensor, count: int) -> tuple[Floats, float, float]:
        """Runs in a worker. Returns the features of the first `count` crops, wall-clock time and processor time.

        A GPU forwards the unused rows too: it may round differently for another batch size.
        """
        start, processor_start = perf_counter(), thread_time()
        used = batch[:count] if self._workers.device.type == "cpu" else batch
        features = self._forward(used)[:count].numpy().copy()
        return features, perf_counter() - start, thread_time() - processor_start


class PixelCollector:
    """The counterpart of `FeatureCollector` for stored crops: returns their pixels in order, without forwarding."""

    seconds = 0.0  # nothing is forwarded

    def __init__(self) -> None:
        self._rows: list[NDArray[np.uint8]] = []
        self.ready = 0  # rows that can be taken
        self.forwarded = 0  # crops

    def add(self, crops: Tensor) -> None:
        """Adds (P, 3, S, S) uint8 crops of any memory format."""
        if len(crops):  # a frame without crops has a tensor of shape (0,)
            self._rows.append(crops.reshape(len(crops), -1).numpy())
            self.forwarded += len(crops)
            self.ready += len(crops)

    def flush(self) -> None:
        """Does nothing: all rows are ready."""

    def take(self, count: int, dim: int) -> NDArray[np.uint8]:
        """Returns all rows so far, (count, dim) uint8 in (3, S, S) order; `count` is `ready` and dim is 3 * S * S."""
        rows = np.concatenate([np.empty((0, dim), np.uint8), *self._rows])
        self._rows, self.ready = [], 0
        return rows
