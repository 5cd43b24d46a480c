"""Augmentation of a batch's crops: mirrored, shifted, brightened, partly hidden, by a few operators on the device.

Mirroring the panorama changes none of the eight spatial features: they are made of widths, heights and absolute
distances. So one coin mirrors a whole batch, and the features stay as they are.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from classify.distributed import local_share

SHIFT = 0.05  # share of the edge, at most
JITTER = 0.25  # brightness and contrast are multiplied by 1 - JITTER to 1 + JITTER
ERASED = 0.25  # share of the crops of which a rectangle is hidden
HIDDEN = (0.15, 0.45)  # edges of that rectangle, as shares of the crop's


@dataclass(frozen=True)
class AugmentParams:
    """The random numbers of a batch, uniform in [0, 1)."""

    mirror: float
    person: Tensor  # (P, 9) float32: shift x, y; brightness, contrast; whether hidden; width, height, left, top


def draw_params(seed: int, batch: int, persons: int) -> AugmentParams:
    """The numbers of batch `batch`, for this rank's share of its `persons`.

    Drawn on the CPU, so that every device and every number of ranks sees the same; from `seed` and `batch` alone.

    Args:
        seed: of the epoch, in [0, 2^62).
        batch: its place in the epoch, from 0.
    """
    key = int(np.random.SeedSequence((seed, batch)).generate_state(1, np.uint64)[0] >> np.uint64(1))
    numbers = torch.rand(1 + 9 * persons, generator=torch.Generator().manual_seed(key))
    own = torch.from_numpy(local_share(np.arange(persons)))
    return AugmentParams(float(numbers[0]), numbers[1:].view(persons, 9)[own])


def augment(crops: Tensor, draws: AugmentParams, strength: float = 1.0) -> Tensor:
    """(P, 3, S, S) uint8 -> the same, channels last, augmented; with strength 0 as they are.

    Args:
        draws: of as many persons.
        strength: in [0, 1], of the mirroring's probability 0.5 and of the limits above.
    """
    person = draws.person.to(crops.device)
    moved = _moved(crops, person[:, :2], draws.mirror < 0.5 * strength, strength)
    bright = _jittered(moved, person[:, 2:4], strength)
    return torch.where(_hidden(person[:, 4:], crops.shape[-1], strength), _mean(bright), bright).round().to(torch.uint8)


def _moved(crops: Tensor, shift: Tensor, mirror: bool, strength: float) -> Tensor:
    """Mirrored and shifted by whole pixels, the edge repeated where nothing comes in; one gather."""
    size = crops.shape[-1]
    most = round(strength * SHIFT * size)
    offset = (shift * (2 * most + 1)).long() - most  # (P, 2), -most to most
    places = (torch.arange(size, device=crops.device) + offset[:, :, None]).clamp(0, size - 1)  # (P, 2, S)
    x, y = places[:, 0], places[:, 1]
    x = size - 1 - x if mirror else x
    each = torch.arange(len(crops), device=crops.device)[:, None, None]
    return crops.permute(0, 2, 3, 1)[each, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


def _jittered(crops: Tensor, amount: Tensor, strength: float) -> Tensor:
    """float32 in [0, 255]: the distance to the crop's mean times contrast, all times brightness."""
    factor = 1 + strength * JITTER * (2 * amount - 1)  # (P, 2)
    brightness, contrast = factor[:, 0, None, None, None], factor[:, 1, None, None, None]
    pixels = crops.float()
    mean = pixels.mean((1, 2, 3), keepdim=True)
    return (((pixels - mean) * contrast + mean) * brightness).clamp(0, 255)


def _hidden(amount: Tensor, size: int, strength: float) -> Tensor:
    """(P, 1, S, S) bool, true inside a crop's hidden rectangle."""
    chosen = amount[:, 0] < strength * ERASED
    extent = size * (HIDDEN[0] + (HIDDEN[1] - HIDDEN[0]) * amount[:, 1:3])  # (P, 2)
    start = (size - extent) * amount[:, 3:5]
    pixel = torch.arange(size, device=amount.device) + 0.5
    inside = (pixel >= start[:, :, None]) & (pixel < (start + extent)[:, :, None])  # (P, 2, S)
    return (inside[:, 0, None, :] & inside[:, 1, :, None] & chosen[:, None, None])[:, None]


def _mean(crops: Tensor) -> Tensor:
    """(P, 3, 1, 1), the mean colour of each crop."""
    return crops.mean((2, 3), keepdim=True)
