"""Augments a batch's crops on the device: mirrors, shifts, changes brightness and contrast, hides rectangles.

A whole batch is mirrored or not. Mirroring the panorama does not change the eight spatial features, which are computed
from widths, heights and absolute distances, so they need no adjustment.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from classify.distributed import local_share

SHIFT = 0.05  # largest shift, as a fraction of the edge
JITTER = 0.25  # brightness and contrast are multiplied by 1 - JITTER to 1 + JITTER
ERASED = 0.25  # fraction of the crops in which a rectangle is hidden
ERASED_EDGE = (0.15, 0.45)  # range of the rectangle's edges, as fractions of the crop's edge


@dataclass(frozen=True)
class AugmentParams:
    """The random numbers of a batch, uniform in [0, 1)."""

    mirror: float
    person: Tensor  # (P, 9) float32: shift x, y; brightness, contrast; whether to hide; width, height, left, top


def draw_params(seed: int, batch: int, persons: int) -> AugmentParams:
    """The random numbers of one batch, for this rank's share of its `persons`.

    They depend on `seed` and `batch` only, and are drawn on the CPU for the whole batch, so every device and every
    number of ranks gets the same ones.

    Args:
        seed: of the epoch, in [0, 2^62).
        batch: index of the batch in the epoch, from 0.
    """
    key = int(np.random.SeedSequence((seed, batch)).generate_state(1, np.uint64)[0] >> np.uint64(1))
    numbers = torch.rand(1 + 9 * persons, generator=torch.Generator().manual_seed(key))
    rows = torch.from_numpy(local_share(np.arange(persons)))
    return AugmentParams(float(numbers[0]), numbers[1:].view(persons, 9)[rows])


def augment(crops: Tensor, params: AugmentParams, strength: float = 1.0) -> Tensor:
    """(P, 3, S, S) uint8 -> the augmented crops of the same shape, channels last.

    Args:
        params: for P persons.
        strength: in [0, 1], scales the mirroring probability 0.5 and the limits above; 0 changes nothing.
    """
    person = params.person.to(crops.device)
    moved = _mirror_and_shift(crops, person[:, :2], params.mirror < 0.5 * strength, strength)
    jittered = _jitter(moved, person[:, 2:4], strength)
    hidden = _hidden_pixels(person[:, 4:], crops.shape[-1], strength)
    return torch.where(hidden, _mean_colour(jittered), jittered).round().to(torch.uint8)


def _mirror_and_shift(crops: Tensor, shift: Tensor, mirror: bool, strength: float) -> Tensor:
    """Mirrors and shifts by whole pixels in one gather; edge pixels are repeated to fill the border."""
    size = crops.shape[-1]
    limit = round(strength * SHIFT * size)
    offset = (shift * (2 * limit + 1)).long() - limit  # (P, 2), -limit to limit
    source = (torch.arange(size, device=crops.device) + offset[:, :, None]).clamp(0, size - 1)  # (P, 2, S)
    x, y = source[:, 0], source[:, 1]
    x = size - 1 - x if mirror else x
    person = torch.arange(len(crops), device=crops.device)[:, None, None]
    return crops.permute(0, 2, 3, 1)[person, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


def _jitter(crops: Tensor, amount: Tensor, strength: float) -> Tensor:
    """float32 in [0, 255]: ((pixel - mean) * contrast + mean) * brightness, with the mean of each crop."""
    factor = 1 + strength * JITTER * (2 * amount - 1)  # (P, 2)
    brightness, contrast = factor[:, 0, None, None, None], factor[:, 1, None, None, None]
    pixels = crops.float()
    mean = pixels.mean((1, 2, 3), keepdim=True)
    return (((pixels - mean) * contrast + mean) * brightness).clamp(0, 255)


def _hidden_pixels(amount: Tensor, size: int, strength: float) -> Tensor:
    """(P, 1, S, S) bool, true inside the rectangle that hides a part of a crop."""
    chosen = amount[:, 0] < strength * ERASED
    smallest, largest = ERASED_EDGE
    extent = size * (smallest + (largest - smallest) * amount[:, 1:3])  # (P, 2)
    start = (size - extent) * amount[:, 3:5]
    pixel = torch.arange(size, device=amount.device) + 0.5
    inside = (pixel >= start[:, :, None]) & (pixel < (start + extent)[:, :, None])  # (P, 2, S)
    return (inside[:, 0, None, :] & inside[:, 1, :, None] & chosen[:, None, None])[:, None]


def _mean_colour(crops: Tensor) -> Tensor:
    """(P, 3, 1, 1), the mean colour of each crop."""
    return crops.mean((2, 3), keepdim=True)
