"""Batches of pairs from a store that does not fit in memory: a window of whole units is loaded at a time.

Shuffling: each epoch visits the units in a new random order, loads `window` of them at a time and fully shuffles their
samples. A batch therefore mixes frames of `window` units. One unit (about 4,096 persons, at least 200 frames) already
mixes far more than file order; a window of all units is a full permutation.
"""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from classify.data.batches import PairBatch, Source, SplitSamples, gather_batch, stacked_batch
from classify.data.cached import CachedFeatures
from classify.data.selection import Split
from extract.units.workers import read_ahead
from store.open import is_packed, read_complete_manifest
from store.reader import StoredFeatures, load_store, open_stored_features
from store.tables import Features, Ints, Tables

_log = logging.getLogger("stage2")


@dataclass(frozen=True)
class StreamedFeatures:
    """The features of a store on disk. Up to two windows of `window` units each are in memory at once."""

    stored: StoredFeatures
    device: torch.device
    window: int

    @classmethod
    def within(cls, stored: StoredFeatures, device: torch.device, memory: float) -> "StreamedFeatures":
        """With the largest window of which two fit in `memory` bytes: the next is read while one is used."""
        unit = max(unit.bytes for unit in stored.manifest.units)
        return cls(stored, device, max(1, int(memory / 2 / unit)))

    @property
    def dim(self) -> int:
        """D."""
        return self.stored.manifest.recipe.visual_dim

    def chunks(self, persons: Ints) -> Iterator[Tensor]:
        """Yields the features (n, D) of sorted person rows (P,), one unit at a time."""
        starts = self.stored.starts
        bounds = np.searchsorted(persons, starts)
        for unit in np.flatnonzero(np.diff(bounds)).tolist():
            rows = persons[bounds[unit] : bounds[unit + 1]] - starts[unit]
            yield torch.from_numpy(self.stored.read([unit])[0][rows]).to(self.device)

    def source(self, tables: Tables, split: Split, batch_size: int, balanced: bool = False) -> Source:
        """The batches of a split."""
        return StreamedSource(self, tables, split, batch_size, balanced)


def open_features(path: Path, device: torch.device, memory: float) -> Features | StoredFeatures:
    """Loads a store's features if they take at most `memory` GiB, else opens them for streaming.

    0 GiB means half of the physical memory (or of the device's, if that is less). Free memory is not considered: the
    sample order must not depend on other processes. A packed store is always loaded.

    Raises:
        StoreError, IncompleteError, IntegrityError: as `store.reader.load_store`.
    """
    size = sum(unit.bytes for unit in read_complete_manifest(path).units)
    if is_packed(path) or size <= _memory_bytes(memory, device):
        return load_store(path)
    _log.info("Streaming %.1f GB of features from disk in each epoch, a window of units at a time.", size / 1e9)
    return open_stored_features(path)


def features_on_device(
    features: Features | StoredFeatures, device: torch.device, memory: float = 0.0
) -> CachedFeatures | StreamedFeatures:
    """The features on `device`: all of them, or streamed through `memory` GiB; see `open_features`."""
    if isinstance(features, Features):
        return CachedFeatures.load(features, device)
    return StreamedFeatures.within(features, device, _memory_bytes(memory, device))


def _memory_bytes(memory: float, device: torch.device) -> float:
    if memory:
        return memory * 2**30
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
    return min(half, torch.cuda.get_device_properties(device).total_memory / 2) if device.type == "cuda" else half


@dataclass(frozen=True)
class _Window:
    """The units of one window in memory, and their s samples in epoch order."""

    views: list[Tensor]  # (n, D) each
    rows: Tensor  # (2, s) int64, rows of the views: A persons and B persons
    samples: Tensor  # (s,) int64


class StreamedSource:
    """The batches of `CachedSource`, in an order that reads each unit once per epoch; see `Source`."""

    def __init__(
        self, features: StreamedFeatures, tables: Tables, split: Split, batch_size: int, balanced: bool
    ) -> None:
        self._features = features
        self._split = SplitSamples.of_split(tables, split, batch_size, balanced, features.device)
        starts = features.stored.starts
        self._unit = np.searchsorted(starts, self._split.pairs[:, 0], side="right") - 1  # (m,)
        self.samples, self.batches = len(self._split), self._split.batches

    def epoch(self, generator: torch.Generator | None = None) -> Iterator[PairBatch]:
        """One pass; see `Source`.

        Raises:
            IntegrityError: a shard is missing or damaged.
        """
        order = np.arange(self.samples)
        units = np.unique(self._unit)
        if generator is not None:
            order = self._split.draw_order(generator).numpy()
            units = units[torch.randperm(len(units), generator=generator).numpy()]
        views = self._split.draw_views(self._features.stored.manifest.recipe.views, generator)
        number, parts = 0, list[PairBatch]()  # the parts of a batch come from successive windows
        with ThreadPoolExecutor(1) as pool:
            for window in read_ahead(self._read, self._windows(units, order), pool, 2):
                start = 0
                while start < len(window.samples):
                    room = self._split.batch_size - sum(len(part.label) for part in parts)
                    parts.append(self._part(window, slice(start, start + room), views[number]))
                    start += room
                    if sum(len(part.label) for part in parts) == self._split.batch_size:
                        yield _join_parts(parts)
                        number, parts = number + 1, []
        if parts:
            yield _join_parts(parts)

    def _windows(self, units: Ints, order: Ints) -> Iterator[tuple[Ints, Ints]]:
        """Yields the units of each window, and their samples in the order of `order`."""
        for start in range(0, len(units), self._features.window):
            window = np.sort(units[start : start + self._features.window])
            samples = order[np.isin(self._unit[order], window)]
            if len(samples):
                yield window, samples

    def _read(self, window: tuple[Ints, Ints]) -> _Window:
        units, samples = window
        stored, device = self._features.stored, self._features.device
        sizes = np.diff(stored.starts)[units]
        shift = np.cumsum(sizes) - sizes - stored.starts[units]  # from a row of the store to a row of the window
        rows = self._split.pairs[samples] + shift[np.searchsorted(units, self._unit[samples])][:, None]
        views = [torch.from_numpy(view).to(device) for view in stored.read(units.tolist())]
        return _Window(views, torch.from_numpy(rows.T.copy()).to(device), torch.from_numpy(samples).to(device))

    def _part(self, window: _Window, samples: slice, view: int) -> PairBatch:
        indices = window.samples[samples]
        spatial, label = self._split.spatial[indices], self._split.label[indices]
        return gather_batch(window.views[view], window.rows[:, samples], spatial, label)


def _join_parts(parts: list[PairBatch]) -> PairBatch:
    """Concatenates the parts of a batch, all A persons first."""
    if len(parts) == 1:
        return parts[0]
    halves = zip(*(part.persons.chunk(2) for part in parts), strict=True)
    persons = torch.cat([half for side in halves for half in side])
    spatial, label = torch.cat([part.spatial for part in parts]), torch.cat([part.label for part in parts])
    return stacked_batch(persons, spatial, label)
