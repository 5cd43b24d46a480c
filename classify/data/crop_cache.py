"""Keeps backbone inputs in memory: crops, or the feature maps that the frozen stages compute from them."""

import logging
from collections.abc import Mapping
from threading import Lock
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classify.data.batches import split_persons
from classify.data.selection import Split
from configs.resnet_stage2_config import ResNetStage2Config
from extract.backbones.resnet import Backbone
from store.tables import Tables

PersonRows = NDArray[np.int64]  # (P,) rows of the person table
GIB = 2**30
_LOCKS = 64

_log = logging.getLogger("stage2")


class PersonInputs(Protocol):
    """The backbone inputs of persons; implemented by `FrameCrops`, `StoredCrops`, `FrozenMaps` and `CropCache`."""

    def __call__(self, persons: PersonRows) -> Tensor:
        """Sorted person rows (P,) -> (P, 3, S, S) uint8 crops or (P, C, H, W) float32 maps, channels last."""


class CropCache:
    """Computes the inputs of a frame's persons once and keeps them in memory, as far as they fit.

    Only whole frames are cached, in the order of `persons`. A frame's persons are always computed together, so their
    values do not depend on which batch asks first. Thread-safe; each frame is computed by one thread.
    """

    def __init__(
        self, compute: PersonInputs, tables: Tables, persons: PersonRows, example: Tensor, budget: int
    ) -> None:
        """Allocates the cache.

        Args:
            persons: (n,) the persons to cache, without repetition, those of a frame together.
            example: (1, C, H, W), of the shape and dtype that `compute` returns.
            budget: bytes.
        """
        self._compute = compute
        self._offset = tables.frame_offset
        frames = self._frames(persons)
        self.size = _whole_frames(frames, budget // _num_bytes(example))  # persons
        self._persons = persons[: self.size]
        self._slot = np.full(len(tables.box), -1, np.int64)  # of each person row; -1: not cached
        self._slot[self._persons] = np.arange(self.size)
        _, channels, height, width = example.shape
        self._inputs = torch.empty((self.size, height, width, channels), dtype=example.dtype)
        self._filled = np.zeros(len(tables.frame_name), bool)
        self._start = np.zeros(len(tables.frame_name), np.int64)  # slot of a cached frame's first person
        self._count = np.bincount(frames[: self.size], minlength=len(tables.frame_name))
        self._start[frames[: self.size][::-1]] = np.arange(self.size)[
            ::-1
        ]  # reversed: the last write is the first slot
        self._locks = [Lock() for _ in range(_LOCKS)]

    def __call__(self, persons: PersonRows) -> Tensor:
        """See `PersonInputs`."""
        slots = self._slot[persons]
        cached = slots >= 0
        for frame in np.unique(self._frames(persons[cached])).tolist():
            self._fill(frame)
        hits = self._inputs[torch.from_numpy(slots[cached])]  # (hits, H, W, C)
        if cached.all():
            return hits.permute(0, 3, 1, 2)
        inputs = torch.empty((len(persons), *self._inputs.shape[1:]), dtype=self._inputs.dtype)
        inputs[torch.from_numpy(cached)] = hits
        inputs[torch.from_numpy(~cached)] = self._compute(persons[~cached]).permute(0, 2, 3, 1)
        return inputs.permute(0, 3, 1, 2)

    def _fill(self, frame: int) -> None:
        with self._locks[frame % _LOCKS]:
            if not self._filled[frame]:
                slots = slice(self._start[frame], self._start[frame] + self._count[frame])
                self._inputs[slots] = self._compute(self._persons[slots]).permute(0, 2, 3, 1)
                self._filled[frame] = True

    def _frames(self, persons: PersonRows) -> PersonRows:
        """(P,) the frame row of each person."""
        return np.searchsorted(self._offset, persons, side="right") - 1


def build_crop_cache(
    crops: PersonInputs, tables: Tables, splits: Mapping[str, Split], backbone: Backbone, config: ResNetStage2Config
) -> CropCache:
    """The cache for the persons of all splits' pairs, up to `crop_cache` GiB, the first split's first; logs its size.

    If the first stages are frozen and crops are not augmented, the cache holds the feature maps of these stages,
    provided that all persons fit: computing maps again costs more than reading crops again.

    Args:
        backbone: on its device; only used if the configuration freezes stages.
    """
    persons = np.concatenate([split_persons(tables, split) for split in splits.values()])
    budget = int(config.crop_cache * GIB)
    inputs, kind = crops, "crops"
    example = torch.zeros((1, 3, config.crop_size, config.crop_size), dtype=torch.uint8)
    if config.freeze_blocks and not config.augment:
        maps = FrozenMaps(crops, backbone)
        map_example = maps.forward(example)
        if len(persons) * _num_bytes(map_example) <= budget:
            inputs, kind, example = maps, "frozen feature maps", map_example
    cache = CropCache(inputs, tables, persons, example, budget)
    _log.info("Cached in memory: %s of %s of %s people in pairs", kind, f"{cache.size:,}", f"{len(persons):,}")
    return cache


class FrozenMaps:
    """The feature maps that a backbone's frozen stages compute from crops; a `PersonInputs`."""

    def __init__(self, crops: PersonInputs, backbone: Backbone) -> None:
        self._crops = crops
        self._backbone = backbone

    def __call__(self, persons: PersonRows) -> Tensor:
        """See `PersonInputs`."""
        return self.forward(self._crops(persons))

    def forward(self, crops: Tensor) -> Tensor:
        """(P, 3, S, S) uint8 -> (P, C, H, W) float32 on the CPU."""
        return self._backbone.forward_frozen_stages(crops.to(self._backbone.mean.device)).cpu()


def _whole_frames(frames: PersonRows, limit: int) -> int:
    """The largest number of leading persons, at most `limit`, that splits no frame; `frames` (n,) are their frames."""
    if limit >= len(frames):
        return len(frames)
    return int(np.flatnonzero(frames == frames[limit])[0])


def _num_bytes(example: Tensor) -> int:
    return example.numel() * example.element_size()
