"""Batches of pairs from features that are in the memory of the device."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from classify.data.batches import PairBatch, Source, SplitSamples, gather_batch
from classify.data.selection import Split
from store.tables import Features, Floats, Ints, Tables

CHUNK = 8192  # persons


@dataclass(frozen=True)
class CachedFeatures:
    """The backbone's output for all N persons, on the device and in the dtype of the store.

    float16 features take half the memory; each batch is converted to float32 when it is gathered.
    """

    views: tuple[Tensor, ...]  # (N, D) each: of the original crops, and if stored of the mirrored ones

    @classmethod
    def load(cls, features: Features, device: torch.device) -> "CachedFeatures":
        """Copies the visual features of a store to `device`."""
        flipped = () if features.visual_flipped is None else (features.visual_flipped,)
        return cls(tuple(_to_tensor(view, device) for view in (features.visual, *flipped)))

    @property
    def dim(self) -> int:
        """D."""
        return self.views[0].shape[1]

    def chunks(self, persons: Ints) -> Iterator[Tensor]:
        """Yields the features (n, D) of person rows (P,), CHUNK rows at a time."""
        original = self.views[0]
        rows = torch.from_numpy(persons).to(original.device)
        return (original[chunk] for chunk in torch.split(rows, CHUNK))

    def source(self, tables: Tables, split: Split, batch_size: int, balanced: bool = False) -> Source:
        """The batches of a split."""
        return CachedSource(tables, self, split, batch_size, balanced)


class CachedSource:
    """Batches gathered from `CachedFeatures`: an epoch is slices of a permutation, and no row leaves the device.

    A batch has the A persons of its pairs first, then their B persons. A person in two pairs appears twice: finding
    the unique rows would cost more than projecting a row again. If the store has mirrored crops, each training batch
    randomly uses one of the two views.
    """

    def __init__(
        self, tables: Tables, features: CachedFeatures, split: Split, batch_size: int, balanced: bool = False
    ) -> None:
        device = features.views[0].device
        self._views = features.views
        self._split = SplitSamples.of_split(tables, split, batch_size, balanced, device)
        self._rows = torch.from_numpy(self._split.pairs.T.copy()).to(device)  # (2, m)
        self.samples, self.batches = len(self._split), self._split.batches

    def epoch(self, generator: torch.Generator | None = None) -> Iterator[PairBatch]:
        """One pass; see `Source`."""
        rows, spatial, label = self._rows, self._split.spatial, self._split.label
        views = self._split.draw_views(len(self._views), generator)
        if generator is not None:
            order = self._split.draw_order(generator).to(label.device)
            rows, spatial, label = rows[:, order], spatial[order], label[order]
        for number, view in enumerate(views):
            batch = slice(number * self._split.batch_size, (number + 1) * self._split.batch_size)
            yield gather_batch(self._views[view], rows[:, batch], spatial[batch], label[batch])


def _to_tensor(array: Floats, device: torch.device) -> Tensor:
    """Copies a read-only array (a memory-mapped file) first, since a tensor cannot be read-only."""
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)
