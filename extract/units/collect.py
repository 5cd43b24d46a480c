"""Fills batches with the crops of successive frames, and has the lanes forward them."""

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
from extract.units.workers import Lanes
from store.tables import Floats

CPU_SIZES = (16, 8, 32)  # the first one stays unless another one is clearly faster
GPU_SIZE = 256
_TRIALS = 4  # batches of each size
_CLEARLY = 0.95  # share of the first size's time


class BatchSize:
    """Gives each batch its size. The trial is the job's own work: nothing is forwarded for measuring alone.

    The features do not depend on it: on the CPU a crop's have the same bits in every batch, and on a GPU, where they
    might not, all batches of a job have one size.
    """

    def __init__(self, asked: int, device: torch.device) -> None:
        """`asked` is a fixed size, or 0 to have it chosen."""
        self._sizes = (asked,) if asked else CPU_SIZES if device.type == "cpu" else (GPU_SIZE,)
        self._turns = cycle(self._sizes)
        self._seconds: dict[int, list[float]] = {size: [] for size in self._sizes}
        self.most = max(self._sizes)
        self.chosen = self._sizes[0] if len(self._sizes) == 1 else 0  # 0: still trying

    def next(self) -> int:
        """The size of the next batch."""
        return self.chosen or next(self._turns)

    def took(self, crops: int, seconds: float) -> None:
        """Notes the processor time that a batch took; one that was not full does not count."""
        if self.chosen or crops not in self._seconds:
            return
        self._seconds[crops].append(seconds / crops)
        if all(len(times) >= _TRIALS for times in self._seconds.values()):
            self.chosen = self._fastest()

    def _fastest(self) -> int:
        times = {size: median(seconds) for size, seconds in self._seconds.items()}
        best, first = min(times, key=lambda size: times[size]), self._sizes[0]
        return best if times[best] < _CLEARLY * times[first] else first


class FeatureCollector:
    """Crops in, in any portions; features out, in order. Batches run on over the borders of frames and units.

    Batches are forwarded by the lanes while the next ones fill; a few wait at most, so memory stays bounded.
    """

    def __init__(self, forward: Forward, size: BatchSize, crop_size: int, dtype: str, lanes: Lanes) -> None:
        self._forward = forward
        self._size = size
        self._dtype = dtype
        self._lanes = lanes
        self._crop_size = crop_size
        self._crops = self._empty()
        self._filled = 0
        self._waiting: deque[Future[tuple[Floats, float, float]]] = deque()
        self._features: list[Floats] = []
        self.ready = 0  # rows that can be taken
        self.forwarded = 0  # crops
        self.seconds = 0.0  # of all lanes

    def add(self, crops: Tensor) -> None:
        """Takes (P, 3, S, S) uint8 crops; hands every full batch to the lanes."""
        while len(crops):
            room = len(self._crops) - self._filled
            part, crops = crops[:room], crops[room:]
            self._crops[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            if self._filled == len(self._crops):
                self._submit()

    def flush(self) -> None:
        """Has what there is forwarded and waits for it; then the features of all crops are ready."""
        if self._filled:
            self._submit()
        while self._waiting:
            self._collect()

    def take(self, count: int, dim: int) -> Floats:
        """(count, D) features of the next `count` crops, at most `ready`; dim is D.

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

    def _empty(self) -> Tensor:
        shape, pinned = (self._size.next(), 3, self._crop_size, self._crop_size), self._lanes.device.type == "cuda"
        return torch.empty(shape, dtype=torch.uint8, memory_format=torch.channels_last, pin_memory=pinned)

    def _submit(self) -> None:
        self._waiting.append(self._lanes.forwarders.submit(self._run, self._crops, self._filled))
        self.forwarded += self._filled
        self._crops, self._filled = self._empty(), 0
        if len(self._waiting) > 2 * self._lanes.width:
            self._collect()

    def _collect(self) -> None:
        features, seconds, processor = self._waiting.popleft().result()
        self._features.append(features)
        self.ready += len(features)
        self.seconds += seconds
        self._size.took(len(features), processor)

    def _run(self, crops: Tensor, count: int) -> tuple[Floats, float, float]:
        """In a lane: the features of a batch's first `count` crops, and the seconds and processor time they took.

        A GPU forwards batches of one shape alone: it may round otherwise in another one.
        """
        began, busy = perf_counter(), thread_time()
        batch = crops[:count] if self._lanes.device.type == "cpu" else crops
        features = self._forward(batch)[:count].numpy().copy()
        return features, perf_counter() - began, thread_time() - busy


class PixelCollector:
    """`FeatureCollector` without a backbone: crops in, in any portions; their pixels out, in order."""

    seconds = 0.0  # nothing is forwarded

    def __init__(self) -> None:
        self._rows: list[NDArray[np.uint8]] = []
        self.ready = 0  # rows that can be taken
        self.forwarded = 0  # crops

    def add(self, crops: Tensor) -> None:
        """Takes (P, 3, S, S) uint8 crops, in whatever order they lie in memory."""
        if len(crops):  # those of a frame that cannot be used have no shape either
            self._rows.append(crops.reshape(len(crops), -1).numpy())
            self.forwarded += len(crops)
            self.ready += len(crops)

    def flush(self) -> None:
        """Nothing waits."""

    def take(self, count: int, dim: int) -> NDArray[np.uint8]:
        """(count, dim) uint8 pixels, in (3, S, S) order, of the crops so far, which are `count`; dim is 3 * S * S."""
        rows = np.concatenate([np.empty((0, dim), np.uint8), *self._rows])
        self._rows, self.ready = [], 0
        return rows
