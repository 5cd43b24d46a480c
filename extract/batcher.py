"""Fills batches with the crops of successive frames, and has the lanes forward them."""

from collections import deque
from concurrent.futures import Future
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from configs.errors import DataError
from extract.forward import Forward
from extract.lanes import Lanes
from store.tables import Floats


class FeatureCollector:
    """Crops in, in any portions; features out, in order, at the end of a unit.

    Batches are forwarded by the lanes while the next ones fill; a few wait at most, so memory stays bounded.
    """

    def __init__(self, forward: Forward, batch: int, crop_size: int, dtype: str, lanes: Lanes) -> None:
        self._forward = forward
        self._dtype = dtype
        self._lanes = lanes
        self._shape = (batch, 3, crop_size, crop_size)
        self._crops = self._empty()
        self._filled = 0
        self._waiting: deque[Future[tuple[Floats, float]]] = deque()
        self._features: list[Floats] = []
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

    def take(self, dim: int) -> Floats:
        """(N, D) features of all crops since the last call.

        Raises:
            DataError: a feature is NaN, infinite, or too large for float16 storage.
        """
        if self._filled:
            self._submit()
        while self._waiting:
            self._collect()
        features = np.concatenate([np.empty((0, dim), np.float32), *self._features])
        self._features = []
        if not np.isfinite(features).all():
            raise DataError("the backbone gives NaN or infinite features; use other weights or --precision float32")
        limit = np.finfo(self._dtype).max
        if features.size and np.abs(features).max() > limit:
            raise DataError(f"features reach {np.abs(features).max():g}, beyond {self._dtype}; use --dtype float32")
        return features.astype(self._dtype)

    def _empty(self) -> Tensor:
        return torch.empty(self._shape, dtype=torch.uint8, memory_format=torch.channels_last)

    def _submit(self) -> None:
        self._waiting.append(self._lanes.forwarders.submit(self._run, self._crops[: self._filled]))
        self.forwarded += self._filled
        self._crops, self._filled = self._empty(), 0
        if len(self._waiting) > 2 * self._lanes.width:
            self._collect()

    def _collect(self) -> None:
        features, seconds = self._waiting.popleft().result()
        self._features.append(features)
        self.seconds += seconds

    def _run(self, crops: Tensor) -> tuple[Floats, float]:
        """In a lane: the features of one batch, and the seconds that they took."""
        began = perf_counter()
        features = self._forward(crops).numpy().copy()
        return features, perf_counter() - began
