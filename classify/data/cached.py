"""Batches of pairs from features that are held on the device."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from classify.data.batches import PairBatch, Source, draw_order, sampling_weights, sorted_pairs
from classify.data.selection import Split
from store.tables import Features, Floats, Ints, Tables

CHUNK = 8192  # persons


@dataclass(frozen=True)
class CachedFeatures:
    """The backbone's output for every person, whole on the device and in the dtype of the store.

    float16 rows become float32 when a batch is gathered: one small operator a step for half the memory.
    """

    original: Tensor  # (N, D)
    flipped: Tensor | None  # (N, D), the mirrored crops

    @classmethod
    def load(cls, features: Features, device: torch.device) -> "CachedFeatures":
        """Moves the visual features of a store to `device`."""
        flipped = features.visual_flipped
        return cls(_tensor(features.visual, device), None if flipped is None else _tensor(flipped, device))

    @property
    def dim(self) -> int:
        """D."""
        return self.original.shape[1]

    def chunks(self, persons: Ints) -> Iterator[Tensor]:
        """The features (n, D) of person rows (P,), some thousand at a time."""
        rows = torch.from_numpy(persons).to(self.original.device)
        return (self.original[part] for part in torch.split(rows, CHUNK))

    def source(self, tables: Tables, split: Split, batch_size: int, balanced: bool = False) -> Source:
        """The batches of a split."""
        return CachedSource(tables, self, split, batch_size, balanced)


class CachedSource:
    """Batches gathered from `CachedFeatures`: an epoch is slices of a permutation, and no row leaves the device.

    A batch holds both persons of each pair, A's rows first; a person of two pairs stands twice, since finding the
    unique rows would cost more than projecting one again. Where the store has mirrored crops, one coin a batch
    picks the view in training.
    """

    def __init__(self, tables: Tables, visual: CachedFeatures, split: Split, batch_size: int, balanced: bool = False):
        device = visual.original.device
        self._visual = visual
        self._pairs = torch.from_numpy(sorted_pairs(tables, split).T.copy()).to(device)  # (2, m)
        self._spatial = torch.from_numpy(tables.spatial[split.pairs].astype(np.float32)).to(device)  # (m, 8)
        self._label = torch.from_numpy(split.labels.copy()).to(device)  # (m,)
        self._weights = sampling_weights(split) if balanced else None
        self._batch_size = batch_size
        self._rows = torch.arange(2 * min(batch_size, len(split.labels)), device=device)
        self.samples = len(split.labels)
        self.batches = -(-self.samples // batch_size)

    def epoch(self, generator: torch.Generator | None = None) -> Iterator[PairBatch]:
        """One pass; see `Source`."""
        pairs, spatial, label = self._pairs, self._spatial, self._label
        flips = self._flips(generator)
        if generator is not None:
            order = draw_order(self.samples, self._weights, generator).to(label.device)
            pairs, spatial, label = pairs[:, order], spatial[order], label[order]
        for batch, start in enumerate(range(0, self.samples, self._batch_size)):
            here = slice(start, start + self._batch_size)
            yield self._batch(pairs[:, here], spatial[here], label[here], flips[batch])

    def _batch(self, pairs: Tensor, spatial: Tensor, label: Tensor, flip: bool) -> PairBatch:
        visual = self._visual.flipped if flip and self._visual.flipped is not None else self._visual.original
        persons = visual.index_select(0, pairs.reshape(-1)).float()  # (2B, D)
        count = len(label)
        return PairBatch(persons, self._rows[:count], self._rows[count : 2 * count], spatial, label)

    def _flips(self, generator: torch.Generator | None) -> list[bool]:
        if generator is None or self._visual.flipped is None:
            return [False] * self.batches
        coins: list[bool] = torch.randint(0, 2, (self.batches,), generator=generator).bool().tolist()
        return coins


def _tensor(array: Floats, device: torch.device) -> Tensor:
    """A memory-mapped file is read-only, which a tensor cannot be: such an array is copied into memory."""
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)
