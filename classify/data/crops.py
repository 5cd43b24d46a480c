"""The source of end-to-end batches: crops of the persons of a batch, read ahead of the model."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classify.data.augment import augment, draw_params
from classify.data.batches import PairBatch, draw_order, sampling_weights, sorted_pairs
from classify.data.crop_cache import PersonInputs, Persons
from classify.data.selection import Split
from classify.distributed import local_share
from configs.errors import MismatchError
from configs.resnet_stage2_config import ResNetStage2Config
from extract.images.crops import crop_people
from extract.images.read import read_frame
from extract.units.workers import read_ahead, single_threaded_pool
from store.crops import Crops
from store.tables import Tables


class CropSource:
    """Batches of crops: each person of a batch stands once, however many of its pairs it is in.

    A pool of `num_workers` threads (decoding and cropping release the GIL) reads at most that many batches ahead;
    with 0 workers the batch is read when it is asked for. The order does not depend on the workers. Where the
    configuration says so, training batches are augmented on the device, by numbers that the epoch's generator and
    the batch's place in the epoch settle.
    """

    def __init__(
        self,
        tables: Tables,
        persons: PersonInputs,
        split: Split,
        config: ResNetStage2Config,
        *,
        device: torch.device,
        balanced: bool = False,
    ):
        self._persons = persons
        self._pairs = sorted_pairs(tables, split)  # (m, 2)
        self._spatial = torch.from_numpy(tables.spatial[split.pairs].astype(np.float32))  # (m, 8)
        self._label = torch.from_numpy(split.labels.copy())  # (m,)
        self._weights = sampling_weights(split) if balanced else None
        self._groups = connected_groups(self._pairs)
        self._batch_size = config.batch_size
        self._augment = config.augment
        self._device = device
        self._workers = config.num_workers
        self.samples = len(split.labels)
        self.batches = -(-self.samples // config.batch_size)

    def epoch(self, generator: torch.Generator | None = None) -> Iterator[PairBatch]:
        """One pass; see `classify.data.batches.Source`.

        Raises:
            FrameError: an image cannot be read.
        """
        order = torch.arange(self.samples)
        seed = None
        if generator is not None:
            order = self._draw(generator)
            seed = int(torch.randint(2**62, (), generator=generator)) if self._augment else None
        parts = torch.split(order, self._batch_size)
        with single_threaded_pool(max(1, self._workers)) as pool:
            readers = pool if self._workers else None
            for index, batch in enumerate(read_ahead(self._read, parts, readers, self._workers + 1)):
                here = _on_device(batch, self._device)
                yield here if seed is None else _augmented(here, seed, index)

    def _draw(self, generator: torch.Generator) -> Tensor:
        """(m,) the samples of a training epoch; where classes are not balanced, those that share a person together."""
        if self._weights is None:
            return shuffle_groups(self._groups, generator)
        return draw_order(self.samples, self._weights, generator)

    def _read(self, part: Tensor) -> PairBatch:
        """The batch of the samples `part` (B,), on the CPU."""
        persons, places = np.unique(self._pairs[part.numpy()], return_inverse=True)
        rows = torch.from_numpy(places.reshape(-1, 2).T.copy())  # (2, B)
        return PairBatch(self._persons(local_share(persons)), rows[0], rows[1], self._spatial[part], self._label[part])


class FrameCrops:
    """A `PersonInputs`: crops cut from the images, each frame that is asked for decoded once a call."""

    def __init__(self, tables: Tables, image_paths: Sequence[Path], crop_size: int) -> None:
        """Args:
        image_paths: (F,) the image of each frame.
        """
        self._tables = tables
        self._paths = image_paths
        self._size = crop_size

    def __call__(self, persons: Persons) -> Tensor:
        """See `PersonInputs`. Raises FrameError."""
        frames = np.searchsorted(self._tables.frame_offset, persons, side="right") - 1
        crops = [
            crop_people(read_frame(self._paths[frame]), self._tables.box[persons[frames == frame]], self._size)
            for frame in np.unique(frames)
        ]
        if not crops:  # a rank without a share
            crops = [torch.empty((0, 3, self._size, self._size), dtype=torch.uint8)]
        return torch.cat(crops)


class StoredCrops:
    """A `PersonInputs`: crops as an extraction stored them."""

    def __init__(self, reader: Crops, crop_size: int) -> None:
        """Raises MismatchError where the store's crops are not of `crop_size`."""
        if reader.crop_size != crop_size:
            raise MismatchError(
                f"the store has crops of crop_size {reader.crop_size}, wanted are {crop_size}; give --crop_size "
                f"{reader.crop_size}, or leave out --store"
            )
        self._reader = reader

    def __call__(self, persons: Persons) -> Tensor:
        """See `PersonInputs`. Raises IntegrityError."""
        size = self._reader.crop_size
        crops = torch.from_numpy(self._reader.rows(persons)).view(-1, 3, size, size)
        return crops.contiguous(memory_format=torch.channels_last)


def _augmented(batch: PairBatch, seed: int, index: int) -> PairBatch:
    """The batch with other crops. What its pairs are, their eight features and their labels, stays as it is."""
    return replace(batch, persons=augment(batch.persons, draw_params(seed, index, batch.num_persons)))


def _on_device(batch: PairBatch, device: torch.device) -> PairBatch:
    return PairBatch(*(part.to(device) for part in (batch.persons, batch.a, batch.b, batch.spatial, batch.label)))


def connected_groups(pairs: NDArray[np.int64]) -> Tensor:
    """(m,) int64 the group, from 0, of each of the pairs (m, 2): two that a chain of shared persons links have one."""
    _, rows = np.unique(pairs, return_inverse=True)
    rows = rows.reshape(pairs.shape)
    group = np.arange(rows.max() + 1)  # of each person: the first person that is known to be linked
    while True:
        first = group[rows].min(axis=1)
        linked = group.copy()
        for side in rows.T:
            np.minimum.at(linked, side, first)
        if np.array_equal(linked, group):
            break
        group = linked
    return torch.from_numpy(np.unique(group[rows[:, 0]], return_inverse=True)[1].reshape(-1))


def shuffle_groups(groups: Tensor, generator: torch.Generator) -> Tensor:
    """(m,) int64, a permutation of the samples with those of each group together, in random order too.

    The groups of a batch come from many frames: as mixed as can be while hardly a person is forwarded twice.
    """
    place = torch.randperm(int(groups.max()) + 1, generator=generator)
    within = torch.randperm(len(groups), generator=generator)
    return torch.argsort(place[groups] * len(groups) + within)
