"""Person crops of a full-circle panorama: grown boxes, cut across the seam, resized with antialiasing."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from store.tables import Floats, Ints

PADDING = 0.2  # share of the box's width and height that is added on each side
BOX_RULE = "round half up; grow each side; wrap at the seam; clip at top and bottom"
INTERPOLATION = "bilinear, antialiased, uint8"


def crop_regions(boxes: Floats, width: int, height: int) -> Ints:
    """(P, 4) int64 left, top, width and height of the grown boxes, in whole pixels.

    `left` lies in [0, width), and left + width may reach over the right edge (the region goes on at the left one);
    top and bottom are clipped to the image. Rounding is half up in integers, so that a roll by whole pixels moves
    every region by exactly that.

    Args:
        boxes: (P, 4) x y width height in pixels; at least a pixel row of each grown box lies in the image.
    """
    x, y, w, h = np.floor(np.asarray(boxes, np.float64) + 0.5).astype(np.int64).T
    w, h = np.maximum(w, 1), np.maximum(h, 1)
    grow_x, grow_y = _round(w * PADDING), _round(h * PADDING)
    top = np.maximum(y - grow_y, 0)
    bottom = np.minimum(y + h + grow_y, height)
    return np.stack([(x - grow_x) % width, top, np.minimum(w + 2 * grow_x, width), bottom - top], axis=1)


def crop_people(frame: Tensor, boxes: Floats, size: int) -> Tensor:
    """(P, 3, size, size) uint8 crops, channels last in memory, of the people of one frame.

    Args:
        frame: (3, H, W) uint8 RGB panorama.
        boxes: (P, 4) x y width height in pixels.
        size: edge of a crop in pixels.
    """
    crops = torch.empty((len(boxes), 3, size, size), dtype=torch.uint8, memory_format=torch.channels_last)
    pixels = frame.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # stored HWC: the fast path of interpolate
    _, height, width = frame.shape
    for crop, (left, top, w, h) in zip(crops, crop_regions(boxes, width, height).tolist(), strict=True):
        rows = pixels[:, top : top + h]
        region = rows[:, :, left : left + w]
        if left + w > width:
            region = torch.cat([region, rows[:, :, : left + w - width]], dim=2)
        crop.copy_(interpolate(region[None], (size, size), mode="bilinear", antialias=True)[0])
    return crops


def outside(boxes: Floats, width: int, height: int) -> NDArray[np.bool_]:
    """(P,) which boxes show nothing of a frame: above, below, more than a turn away, or wider than the circle."""
    x, _, w, _ = np.asarray(boxes, np.float64).T
    center = x + w / 2
    unseen = crop_regions(boxes, width, height)[:, 3] <= 0
    return np.asarray(unseen | (center < -width) | (center > 2 * width) | (w > width))


def _round(values: Floats) -> Ints:
    return np.asarray(np.floor(values + 0.5).astype(np.int64))
