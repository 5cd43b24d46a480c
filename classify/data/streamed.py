"""The source of batches for a store that memory does not hold: a window of whole units at a time.

Shuffling: each epoch takes the units in another order, reads `window` of them at a time, and mixes their samples
completely. So a batch mixes the frames of `window` units of that epoch; with one unit (some 4,096 persons, at least
200 frames) that is already far from the order of the file, with all units it is a full permutation.
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

from classify.data.batches import PairBatch, Source, draw_order, sampling_weights, sorted_pairs
from classify.data.cached import CachedFeatures
from classify.data.selection import Split
from extract.units.workers import read_ahead
from store.format.manifest import read_complete_manifest
from store.reader import StoredFeatures, load_store, open_stored
from store.tables import Features, Ints, Tables

_log = logging.getLogger("stage2")


@dataclass(frozen=True)
class StreamedFeatures:
    """The features of a store on the disk, `window` units of which may be in memory at once, twice."""

    stored: StoredFeatures
    device: torch.device
    window: int

    @classmethod
    def within(cls, stored: StoredFeatures, device: torch.device, memory: float) -> "StreamedFeatures":
        """With as large a window as fits `memory` bytes: one window is read while the one before is used."""
        unit = max(unit.bytes for unit in stored.manifest.units)
        return cls(stored, device, max(1, int(memory / 2 / unit)))

    @property
    def dim(self) -> int:
        """D."""
        return self.stored.manifest.recipe.visual_dim

    def chunks(self, persons: Ints) -> Iterator[Tensor]:
        """The features (n, D) of sorted person rows (P,), those of a unit at a time."""
        starts = self.stored.starts
        places = np.searchsorted(persons, starts)
        for unit in np.flatnonzero(np.diff(places)).tolist():
            rows = persons[places[unit] : places[unit + 1]] - starts[unit]
            yield torch.from_numpy(self.stored.read([unit])[0][rows]).to(self.device)

    def source(self, tables: Tables, split: Split, batch_size: int, balanced: bool = False) -> Source:
        """The batches of a split."""
        return StreamedSource(self, tables, split, batch_size, balanced)


def open_features(path: Path, device: torch.device, memory: float) -> Features | StoredFeatures:
    """A store's features, in memory where they take no more than `memory` GiB, else left on the disk.

    0 GiB stands for half of what the machine has (and the device, where that is less), used or not: what else runs
    must not change the order of the samples. A packed store is always taken into memory.

    Raises:
        StoreError, IncompleteError, IntegrityError: as `store.reader.load_store`.
    """
    size = sum(unit.bytes for unit in read_complete_manifest(path).units)
    if path.is_file() or size <= _bytes(memory, device):
        return load_store(path)
    _log.info(
        "%.1f GB of features stay on the disk and are read in each epoch, a window of units at a time.", size / 1e9
    )
    return open_stored(path)


def features_on_device(
    features: Features | StoredFeatures, device: torch.device, memory: float = 0.0
) -> CachedFeatures | StreamedFeatures:
    """The features on `device`, or as much of them at a time as fits `memory` GiB; see `open_features`."""
    if isinstance(features, Features):
        return CachedFeatures.load(features, device)
    return StreamedFeatures.within(features, device, _bytes(memory, device))


def _bytes(memory: float, device: torch.device) -> float:
    if memory:
        return memory * 2**30
    half = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2
    return min(half, torch.cuda.get_device_properties(device).total_memory / 2) if device.type == "cuda" else half


@dataclass(frozen=True)
class _Window:
    """Units in memory, and the samples that they hold, in order."""

    views: list[Tensor]  # (n, D) each
    place: Tensor  # (2, s) int64, rows of the views, A's persons and B's
    samples: Tensor  # (s,) int64


class StreamedSource:
    """Batches as `CachedSource` makes them, in an order that reads each unit once an epoch; see `Source`."""

    def __init__(self, visual: StreamedFeatures, tables: Tables, split: Split, batch_size: int, balanced: bool):
        self._visual = visual
        self._pairs = sorted_pairs(tables, split)  # (m, 2)
        self._unit = np.searchsorted(visual.stored.starts, self._pairs[:, 0], side="right") - 1  # (m,)
        self._spatial = torch.from_numpy(tables.spatial[split.pairs].astype(np.float32)).to(visual.device)
        self._label = torch.from_numpy(split.labels.copy()).to(visual.device)
        self._weights = sampling_weights(split) if balanced else None
        self._batch_size = batch_size
        self.samples = len(split.labels)
        self.batches = -(-self.samples // batch_size)

    def epoch(self, generator: torch.Generator | None = None) -> Iterator[PairBatch]:
        """One pass; see `Source`.

        Raises:
            IntegrityError: a shard is missing or damaged.
        """
        order = np.arange(self.samples)
        units = np.unique(self._unit)
        if generator is not None:
            order = draw_order(self.samples, self._weights, generator).numpy()
            units = units[torch.randperm(len(units), generator=generator).numpy()]
        coins = self._coins(generator)
        number, parts = 0, list[PairBatch]()
        with ThreadPoolExecutor(1) as pool:
            for window in read_ahead(self._read, self._windows(units, order), pool, 2):
                start = 0
                while start < len(window.samples):
                    room = self._batch_size - sum(len(part.label) for part in parts)
                    parts.append(self._gather(window, slice(start, start + room), coins[number]))
                    start += room
                    if sum(len(part.label) for part in parts) == self._batch_size:
                        yield _joined(parts)
                        number, parts = number + 1, []
        if parts:
            yield _joined(parts)

    def _windows(self, units: Ints, order: Ints) -> Iterator[tuple[Ints, Ints]]:
        """The units of each window, and the samples of `order` that they hold, in that order."""
        for start in range(0, len(units), self._visual.window):
            here = np.sort(units[start : start + self._visual.window])
            samples = order[np.isin(self._unit[order], here)]
            if len(samples):
                yield here, samples

    def _read(self, wanted: tuple[Ints, Ints]) -> _Window:
        units, samples = wanted
        starts = self._visual.stored.starts
        sizes = np.diff(starts)[units]
        shift = np.cumsum(sizes) - sizes - starts[units]  # from a row of the store to one of the window
        place = self._pairs[samples] + shift[np.searchsorted(units, self._unit[samples])][:, None]
        device = self._visual.device
        views = [torch.from_numpy(view).to(device) for view in self._visual.stored.read(units.tolist())]
        return _Window(views, torch.from_numpy(place.T.copy()).to(device), torch.from_numpy(samples).to(device))

    def _gather(self, window: _Window, here: slice, view: int) -> PairBatch:
        samples = window.samples[here]
        persons = window.views[view].index_select(0, window.place[:, here].reshape(-1)).float()  # (2B, D)
        rows = torch.arange(len(persons), device=persons.device).view(2, -1)
        return PairBatch(persons, rows[0], rows[1], self._spatial[samples], self._label[samples])

    def _coins(self, generator: torch.Generator | None) -> list[int]:
        """Which view each batch takes: the upright one, or in training by a coin, where the store has two."""
        if generator is None or self._visual.stored.manifest.recipe.views == 1:
            return [0] * self.batches
        coins: list[int] = torch.randint(0, 2, (self.batches,), generator=generator).tolist()
        return coins


def _joined(parts: list[PairBatch]) -> PairBatch:
    """Parts of a batch from successive windows as one, the persons of A first."""
    if len(parts) == 1:
        return parts[0]
    halves = zip(*(part.persons.chunk(2) for part in parts), strict=True)
    persons = torch.cat([half for side in halves for half in side])
    rows = torch.arange(len(persons), device=persons.device).view(2, -1)
    spatial, label = torch.cat([part.spatial for part in parts]), torch.cat([part.label for part in parts])
    return PairBatch(persons, rows[0], rows[1], spatial, label)
