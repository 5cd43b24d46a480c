"""What the backbone takes of a person, kept in memory: crops, or the maps that its frozen stages make of them."""

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

Persons = NDArray[np.int64]
GIB = 2**30
_LOCKS = 64

_log = logging.getLogger("stage2")


class PersonInputs(Protocol):
    """What the backbone takes of persons."""

    def __call__(self, persons: Persons) -> Tensor:
        """Sorted person rows (P,) -> (P, 3, S, S) uint8 crops or (P, C, H, W) float32 maps, channels last."""


class CropCache:
    """A `PersonInputs` that asks another one once for the people of a frame, and keeps them where they fit.

    Whole frames are kept, the first of `persons` first, and those of a frame are always made together, so what they
    are does not depend on which batch asks first. Several threads may ask; a frame is made by one of them.
    """

    def __init__(self, make: PersonInputs, tables: Tables, persons: Persons, example: Tensor, budget: int) -> None:
        """Args:
        persons: (n,) who may be kept, without repetition, those of a frame together.
        example: (1, C, H, W), of the shape and type that `make` gives.
        budget: bytes.
        """
        self._make = make
        self._offset = tables.frame_offset
        frames = self._frames(persons)
        self.size = _whole_frames(frames, budget // _bytes(example))
        self._persons = persons[: self.size]
        self._slot = np.full(len(tables.box), -1, np.int64)
        self._slot[self._persons] = np.arange(self.size)
        _, channels, height, width = example.shape
        self._block = torch.empty((self.size, height, width, channels), dtype=example.dtype)  # pages come when written
        self._full = np.zeros(len(tables.frame_name), bool)
        self._start = np.zeros(len(tables.frame_name), np.int64)  # slot of a kept frame's first person
        self._count = np.bincount(frames[: self.size], minlength=len(tables.frame_name))
        self._start[frames[: self.size][::-1]] = np.arange(self.size)[::-1]  # of several, the last written: the first
        self._locks = [Lock() for _ in range(_LOCKS)]

    def __call__(self, persons: Persons) -> Tensor:
        """See `PersonInputs`."""
        slots = self._slot[persons]
        here = slots >= 0
        for frame in np.unique(self._frames(persons[here])).tolist():
            self._fill(frame)
        found = self._block[torch.from_numpy(slots[here])]  # (P, H, W, C)
        if here.all():
            return found.permute(0, 3, 1, 2)
        rows = torch.empty((len(persons), *self._block.shape[1:]), dtype=self._block.dtype)
        rows[torch.from_numpy(here)] = found
        rows[torch.from_numpy(~here)] = self._make(persons[~here]).permute(0, 2, 3, 1)
        return rows.permute(0, 3, 1, 2)

    def _fill(self, frame: int) -> None:
        with self._locks[frame % _LOCKS]:
            if not self._full[frame]:
                slots = slice(self._start[frame], self._start[frame] + self._count[frame])
                self._block[slots] = self._make(self._persons[slots]).permute(0, 2, 3, 1)
                self._full[frame] = True

    def _frames(self, persons: Persons) -> Persons:
        """(P,) the frame row of each person."""
        return np.searchsorted(self._offset, persons, side="right") - 1


def build_crop_cache(
    crops: PersonInputs, tables: Tables, splits: Mapping[str, Split], backbone: Backbone, config: ResNetStage2Config
) -> CropCache:
    """The people of all splits' pairs, as many as `crop_cache` holds, those of the first split first; logs how many.

    Where the first stages stay as they are and crops are not augmented, what these stages make of a crop is kept in
    its place, provided that all people fit so: to make maps again costs less than to read crops again.

    Args:
        backbone: on its device; only asked where the configuration freezes stages.
    """
    persons = np.concatenate([split_persons(tables, split) for split in splits.values()])
    budget = int(config.crop_cache * GIB)
    example = torch.zeros((1, 3, config.crop_size, config.crop_size), dtype=torch.uint8)
    if config.freeze_blocks and not config.augment:
        maps = FrozenMaps(crops, backbone)
        maps_example = maps.of(example)
        if len(persons) * _bytes(maps_example) <= budget:
            return _logged(CropCache(maps, tables, persons, maps_example, budget), len(persons), "frozen maps")
    return _logged(CropCache(crops, tables, persons, example, budget), len(persons), "crops")


class FrozenMaps:
    """A `PersonInputs`: what the stages of a backbone that stay as they are make of crops."""

    def __init__(self, crops: PersonInputs, backbone: Backbone) -> None:
        self._crops = crops
        self._backbone = backbone

    def __call__(self, persons: Persons) -> Tensor:
        """See `PersonInputs`."""
        return self.of(self._crops(persons))

    def of(self, crops: Tensor) -> Tensor:
        """(P, 3, S, S) uint8 -> (P, C, H, W) float32 on the CPU."""
        return self._backbone.forward_frozen_stages(crops.to(self._backbone.mean.device)).cpu()


def _logged(cache: CropCache, people: int, what: str) -> CropCache:
    _log.info("Kept in memory: %s of %s of %s people in pairs", what, f"{cache.size:,}", f"{people:,}")
    return cache


def _whole_frames(frames: Persons, most: int) -> int:
    """How many of the persons in `frames` (n,), a frame's together, may be kept if none of its frame is left out."""
    if most >= len(frames):
        return len(frames)
    return int(np.flatnonzero(frames == frames[most])[0])


def _bytes(example: Tensor) -> int:
    return example.numel() * example.element_size()
