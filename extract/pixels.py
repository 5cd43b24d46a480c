"""Crops as they are, in a backbone's place: what `extract --crops` stores beside the features."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


class PixelCollector:
    """`extract.batcher.FeatureCollector` without a backbone: crops in, in any portions; their pixels out, in order."""

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
