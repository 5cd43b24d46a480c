"""End-to-end batches: the crops of each batch's persons, read ahead of the model by a pool of threads."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classify.data.augment import augment, draw_params
from classify.data.batches import PairBatch, SplitSamples
from classify.data.crop_cache import PersonInputs, PersonRows
from classify.data.selection import Split
from classify.distributed import local_share
from configs.errors import MismatchError
from configs.panorama import AUTO
from configs.resnet_stage2_config import ResNetStage2Config
from extract.images.crops import crop_people
from extract.images.identity import image_identities
from extract.images.read import read_frame
from extract.units.workers import read_ahead, single_threaded_pool
from store.crops import Crops
from store.tables import Ints, Tables


class CropSource:
    """Batches of crops in which each person appears once, even if several pairs share the person.

    A pool of `num_workers` threads (decoding and cropping release the GIL) reads up to that many batches ahead; with
    0 workers each batch is read when it is needed. The order does not depend on the workers. If the configuration
    enables augmentation, training batches are augmented on the device; the parameters depend only on the epoch's
    generator and the batch's index.
    """

    def __init__(
        self,
        tables: Tables,
        inputs: PersonInputs,
        split: Split,
        config: ResNetStage2Config,
        *,
        device: torch.device,
        balanced: bool = False,
    ) -> None:
        self._inputs = inputs
        self._split = SplitSamples.of_split(tables, split, config.batch_size, balanced, torch.device("cpu"))
        self._groups = connected_groups(self._split.pairs)
        self._augment = config.augment
        self._device = device
        self._workers = config.num_workers
        self.samples, self.batches = len(self._split), self._split.batches

    def epoch(self, generator: torch.Generator | None = None) -> Iterator[PairBatch]:
        """One pass; see `classify.data.batches.Source`.

        Raises:
            FrameError: an image cannot be read.
        """
        order = torch.arange(self.samples)
        seed = None
        if generator is not None:
            order = self._draw_order(generator)
            seed = int(torch.randint(2**62, (), generator=generator)) if self._augment else None
        with single_threaded_pool(max(1, self._workers)) as pool:
            readers = pool if self._workers else None
            batches = torch.split(order, self._split.batch_size)
            for index, batch in enumerate(read_ahead(self._read, batches, readers, self._workers + 1)):
                on_device = _to_device(batch, self._device)
                yield on_device if seed is None else _augment_batch(on_device, seed, index)

    def _draw_order(self, generator: torch.Generator) -> Tensor:
        """(m,) the samples of a training epoch. Unless balanced, pairs that share persons are batched together."""
        if self._split.weights is None:
            return shuffle_groups(self._groups, generator)
        return self._split.draw_order(generator)

    def _read(self, samples: Tensor) -> PairBatch:
        """The batch of the samples (B,), on the CPU."""
        persons, rows = np.unique(self._split.pairs[samples.numpy()], return_inverse=True)
        a, b = torch.from_numpy(rows.reshape(-1, 2).T.copy())  # (2, B)
        return PairBatch(
            self._inputs(local_share(persons)), a, b, self._split.spatial[samples], self._split.label[samples]
        )


class FrameCrops:
    """Crops cut from the images; each call decodes each of its frames once. A `CropInputs`."""

    def __init__(
        self,
        tables: Tables,
        image_paths: Sequence[Path],
        crop_size: int,
        read: Callable[[Path], Tensor] = read_frame,
        panorama: str = AUTO,
        sha256: Sequence[str] | None = None,
    ) -> None:
        """Args:
        image_paths: (F,) the image of each frame.
        panorama: see `configs.panorama.edges_touch`.
        read: decodes an image to (3, H, W) uint8.
        sha256: (F,) of the images, if known; otherwise they are read when they are asked for.
        """
        self._tables = tables
        self._paths = image_paths
        self._size = crop_size
        self._panorama = panorama
        self._read = read
        self._sha256 = sha256

    def __call__(self, persons: PersonRows) -> Tensor:
        """See `PersonInputs`. Raises FrameError."""
        frames = np.searchsorted(self._tables.frame_offset, persons, side="right") - 1
        crops = [
            crop_people(
                self._read(self._paths[frame]),
                self._tables.box[persons[frames == frame]],
                self._size,
                self._panorama,
            )
            for frame in np.unique(frames)
        ]
        if not crops:  # in distributed training a rank's share of a small batch can be empty
            crops = [torch.empty((0, 3, self._size, self._size), dtype=torch.uint8)]
        return torch.cat(crops)

    def image_sha256(self, frames: Ints) -> list[str]:
        """See `CropInputs`."""
        if self._sha256 is not None:
            return [str(self._sha256[frame]) for frame in frames.tolist()]
        return image_identities([self._paths[frame] for frame in frames.tolist()])


class StoredCrops:
    """Crops from a store of crops. A `CropInputs`."""

    def __init__(self, reader: Crops, crop_size: int) -> None:
        """Raises MismatchError if the store's crops are not of `crop_size`."""
        if reader.crop_size != crop_size:
            raise MismatchError(
                f"the store has crops of crop_size {reader.crop_size}, not {crop_size}; give --crop_size "
                f"{reader.crop_size}, or leave out --store"
            )
        self._reader = reader

    def __call__(self, persons: PersonRows) -> Tensor:
        """See `PersonInputs`. Raises IntegrityError."""
        size = self._reader.crop_size
        crops = torch.from_numpy(self._reader.rows(persons)).view(-1, 3, size, size)
        return crops.contiguous(memory_format=torch.channels_last)

    def image_sha256(self, frames: Ints) -> list[str]:
        """See `CropInputs`."""
        return [str(value) for value in self._reader.frame_sha256[frames]]


def _augment_batch(batch: PairBatch, seed: int, index: int) -> PairBatch:
    """Augments the crops only: pairs, spatial features and labels are unchanged."""
    return replace(batch, persons=augment(batch.persons, draw_params(seed, index, batch.num_persons)))


def _to_device(batch: PairBatch, device: torch.device) -> PairBatch:
    tensors = (batch.persons, batch.a, batch.b, batch.spatial, batch.label)
    return PairBatch(*(tensor.to(device) for tensor in tensors))


def connected_groups(pairs: NDArray[np.int64]) -> Tensor:
    """(m,) int64 the connected component, from 0, of each of `pairs` (m, 2); sharing a person connects two pairs."""
    _, rows = np.unique(pairs, return_inverse=True)
    rows = rows.reshape(pairs.shape)
    group = np.arange(rows.max() + 1)  # of each person: the smallest person known to be connected
    while True:
        smallest = group[rows].min(axis=1)
        merged = group.copy()
        for side in rows.T:
            np.minimum.at(merged, side, smallest)
        if np.array_equal(merged, group):
            break
        group = merged
    return torch.from_numpy(np.unique(group[rows[:, 0]], return_inverse=True)[1].reshape(-1))


def shuffle_groups(groups: Tensor, generator: torch.Generator) -> Tensor:
    """(m,) int64, a random permutation of the samples that keeps each group together, in random order inside it.

    The groups of a batch come from many frames, so batches are well mixed, and few persons are forwarded twice.
    """
    group_rank = torch.randperm(int(groups.max()) + 1, generator=generator)
    sample_rank = torch.randperm(len(groups), generator=generator)
    return torch.argsort(group_rank[groups] * len(groups) + sample_rank)
