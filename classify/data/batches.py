"""What the model is fed: batches of pairs, and the source that cuts them from features held on the device."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from classify.data.selection import Split
from classify.distributed import is_distributed
from store.tables import Tables


@dataclass(frozen=True, slots=True)
class PairBatch:
    """B pairs of P persons, on one device.

    `persons` are feature rows (P, D) float32 in cached mode and crops (P, 3, S, S) uint8 in end-to-end mode; where
    several ranks train together, those of this rank's share alone (see classify.distributed).
    """

    persons: Tensor
    a: Tensor  # (B,) int64, rows of `persons`
    b: Tensor  # (B,) int64, rows of `persons`
    spatial: Tensor  # (B, 8) float32, see extract.annotations.spatial
    label: Tensor  # (B,) int64, class index

    @property
    def num_persons(self) -> int:
        """P, over all ranks: every person stands in a pair."""
        return int(torch.maximum(self.a.max(), self.b.max())) + 1 if is_distributed() else len(self.persons)


class Source(Protocol):
    """The samples of one split as batches; `CachedSource` and `CropSource` are the two."""

    samples: int
    batches: int

    def epoch(self, generator: torch.Generator | None = None) -> Iterator[PairBatch]:
        """One pass: in order without a generator, else in the order that `generator` (on the CPU) draws."""


def sorted_pairs(tables: Tables, split: Split) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """(m, 2) person rows of each pair, the smaller first: (A, B) and (B, A) make the same batch, bit for bit."""
    return np.sort(tables.pair[split.pairs].astype(np.int64), axis=1)


def draw_order(samples: int, weights: Tensor | None, generator: torch.Generator) -> Tensor:
    """(m,) int64: a permutation, or with `weights` (m,) as many draws with replacement."""
    if weights is None:
        return torch.randperm(samples, generator=generator)
    return torch.multinomial(weights, samples, replacement=True, generator=generator)


def sampling_weights(split: Split) -> Tensor:
    """(m,) float64: one over the size of each sample's class, so that every class present is drawn equally often."""
    return torch.from_numpy(1.0 / np.bincount(split.labels)[split.labels])


def split_persons(tables: Tables, split: Split) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """(P,) sorted rows of the persons that stand in a pair of `split`."""
    return np.unique(tables.pair[split.pairs].astype(np.int64))
