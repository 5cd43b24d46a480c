"""Fills fixed batches with the crops of successive frames, so that the model sees one shape only."""

from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from configs.errors import DataError
from extract.forward import Forward
from store.tables import Floats


class FeatureCollector:
    """Crops in, in any portions; features out, in order, at the end of a unit."""

    def __init__(self, forward: Forward, batch: int, crop_size: int, dtype: str) -> None:
        self._forward = forward
        self._dtype = dtype
        shape = (batch, 3, crop_size, crop_size)
        self._crops = torch.zeros(shape, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
        self._filled = 0
        self._features: list[Floats] = []
        self.forwarded = 0  # crops
        self.seconds = 0.0

    def add(self, crops: Tensor) -> None:
        """Takes (P, 3, S, S) uint8 crops; runs the model whenever a batch is full."""
        while len(crops):
            room = len(self._crops) - self._filled
            part, crops = crops[:room], crops[room:]
            self._crops[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            if self._filled == len(self._crops):
                self._run()

    def take(self, dim: int) -> Floats:
        """(N, D) features of all crops since the last call; the last batch is padded, never another shape.

        Raises:
            DataError: a feature is NaN, infinite, or too large for float16 storage.
        """
        if self._filled:
            self._run()
        features = np.concatenate([np.empty((0, dim), np.float32), *self._features])
        self._features = []
        if not np.isfinite(features).all():
            raise DataError("the backbone gives NaN or infinite features; use other weights or --precision float32")
        limit = np.finfo(self._dtype).max
        if features.size and np.abs(features).max() > limit:
            raise DataError(f"features reach {np.abs(features).max():g}, beyond {self._dtype}; use --dtype float32")
        return features.astype(self._dtype)

    def _run(self) -> None:
        began = perf_counter()
        features = self._forward(self._crops)[: self._filled]
        self._features.append(features.numpy().copy())
        self.forwarded += self._filled
        self._filled = 0
        self.seconds += perf_counter() - began
