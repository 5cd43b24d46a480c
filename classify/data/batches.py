"""Batches of pairs, and the parts that the three sources of batches share."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classify.data.selection import Split
from classify.distributed import is_distributed
from store.tables import Tables


@dataclass(frozen=True, slots=True)
class PairBatch:
    """B pairs of P persons, on one device.

    `persons` are feature rows (P, D) float32 in cached mode and crops (P, 3, S, S) uint8 in end-to-end mode. In
    distributed training each rank has only its share of the persons (see classify.distributed).
    """

    persons: Tensor
    a: Tensor  # (B,) int64, rows of `persons`
    b: Tensor  # (B,) int64, rows of `persons`
    spatial: Tensor  # (B, 8) float32, see extract.annotations.spatial
    label: Tensor  # (B,) int64, class index

    @property
    def num_persons(self) -> int:
        """P over all ranks; every person belongs to at least one pair, so the largest row tells."""
        return int(torch.maximum(self.a.max(), self.b.max())) + 1 if is_distributed() else len(self.persons)


class Source(Protocol):
    """The samples of one split as batches; implemented by `CachedSource`, `StreamedSource` and `CropSource`."""

    samples: int
    batches: int

    def epoch(self, generator: torch.Generator | None = None) -> Iterator[PairBatch]:
        """One pass: in table order without a generator, else in an order drawn from `generator` (on the CPU)."""


@dataclass(frozen=True)
class SplitSamples:
    """The m samples of a split, as every source needs them."""

    pairs: NDArray[np.int64]  # (m, 2) person rows, the smaller first: (A, B) and (B, A) give identical batches
    spatial: Tensor  # (m, 8) float32
    label: Tensor  # (m,) int64
    weights: Tensor | None  # (m,) float64, sampling weights of a balanced source
    batch_size: int

    @classmethod
    def of_split(
        cls, tables: Tables, split: Split, batch_size: int, balanced: bool, device: torch.device
    ) -> "SplitSamples":
        """The samples of `split`, spatial features and labels on `device`; `balanced` draws classes equally often."""
        pairs = np.sort(tables.pair[split.pairs].astype(np.int64), axis=1)
        spatial, label = pair_tensors(tables, split, device)
        return cls(pairs, spatial, label, sampling_weights(split) if balanced else None, batch_size)

    def __len__(self) -> int:
        """m."""
        return len(self.label)

    @property
    def batches(self) -> int:
        """Number of batches in an epoch; the last one may be smaller."""
        return -(-len(self) // self.batch_size)

    def draw_order(self, generator: torch.Generator) -> Tensor:
        """(m,) int64 sample indices of a training epoch; see `draw_order`."""
        return draw_order(len(self), self.weights, generator)

    def draw_views(self, views: int, generator: torch.Generator | None) -> list[int]:
        """For each batch of an epoch, which view of the crops to use: 0, or in training at random 0 or 1 of two."""
        if generator is None or views == 1:
            return [0] * self.batches
        drawn: list[int] = torch.randint(0, 2, (self.batches,), generator=generator).tolist()
        return drawn


def pair_tensors(tables: Tables, split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    """Spatial features (m, 8) float32 and labels (m,) int64 of the samples of a split."""
    spatial = torch.from_numpy(tables.spatial[split.pairs].astype(np.float32)).to(device)
    return spatial, torch.from_numpy(split.labels.copy()).to(device)


def gather_batch(features: Tensor, rows: Tensor, spatial: Tensor, label: Tensor) -> PairBatch:
    """The batch of B pairs whose persons are rows (2, B) of `features` (N, D), which may be float16."""
    return stacked_batch(features.index_select(0, rows.reshape(-1)).float(), spatial, label)


def stacked_batch(persons: Tensor, spatial: Tensor, label: Tensor) -> PairBatch:
    """The batch of B pairs from `persons` (2B, ...): the A persons of all pairs, then their B persons."""
    a, b = torch.arange(len(persons), device=persons.device).view(2, len(persons) // 2).unbind()
    return PairBatch(persons, a, b, spatial, label)


def draw_order(samples: int, weights: Tensor | None, generator: torch.Generator) -> Tensor:
    """(m,) int64: a permutation, or with `weights` (m,) as many draws with replacement."""
    if weights is None:
        return torch.randperm(samples, generator=generator)
    return torch.multinomial(weights, samples, replacement=True, generator=generator)


def sampling_weights(split: Split) -> Tensor:
    """(m,) float64: the inverse size of each sample's class, so that all classes present are drawn equally often."""
    return torch.from_numpy(1.0 / np.bincount(split.labels)[split.labels])


def split_persons(tables: Tables, split: Split) -> NDArray[np.int64]:
    """(P,) sorted rows of the persons in the pairs of `split`, without repetition."""
    return np.unique(tables.pair[split.pairs].astype(np.int64))
