"""Fills batches with the crops of successive frames, and has the lanes forward them."""

from collections import deque
from concurrent.futures import Future
from time import perf_counter, thread_time

import numpy as np
import torch
from torch import Tensor

from configs.errors import DataError
from extract.batch_size import BatchSize
from extract.forward import Forward
from extract.lanes import Lanes
from store.tables import Floats


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
