"""Person crops of a 360-degree panorama: boxes are padded, cut across the seam, and resized with antialiasing."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from store.tables import Floats, Ints

PADDING = 0.2  # added on each side, as a share of the box's width and height
BOX_RULE = "round half up; grow each side; wrap at the seam; clip at top and bottom"
INTERPOLATION = "bilinear, antialiased, uint8"


def crop_regions(boxes: Floats, width: int, height: int) -> Ints:
    """Returns (P, 4) int64 left, top, width and height of the padded boxes in whole pixels.

    `left` is in [0, width). If left + width exceeds the image's width, the region continues at the left edge. Top and
    bottom are clipped to the image. Coordinates are rounded half up before any arithmetic, so rolling the panorama by
    n pixels moves each region by exactly n.

    Args:
        boxes: (P, 4) x y width height in pixels; each padded box overlaps at least one pixel row of the image.
        width, height: size of the panorama in pixels.
    """
    x, y, w, h = np.floor(np.asarray(boxes, np.float64) + 0.5).astype(np.int64).T
    w, h = np.maximum(w, 1), np.maximum(h, 1)
    pad_x, pad_y = _round_half_up(w * PADDING), _round_half_up(h * PADDING)
    top = np.maximum(y - pad_y, 0)
    bottom = np.minimum(y + h + pad_y, height)
    return np.stack([(x - pad_x) % width, top, np.minimum(w + 2 * pad_x, width), bottom - top], axis=1)


def crop_people(frame: Tensor, boxes: Floats, size: int) -> Tensor:
    """Returns the crops of the persons in one frame: (P, 3, size, size) uint8, channels last in memory.

    Args:
        frame: (3, H, W) uint8 RGB panorama.
        boxes: (P, 4) x y width height in pixels.
        size: width and height of a crop in pixels.
    """
    crops = torch.empty((len(boxes), 3, size, size), dtype=torch.uint8, memory_format=torch.channels_last)
    pixels = frame.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # stored as HWC: interpolate is fastest for this
    _, height, width = frame.shape
    for crop, (left, top, w, h) in zip(crops, crop_regions(boxes, width, height).tolist(), strict=True):
        rows = pixels[:, top : top + h]
        region = rows[:, :, left : left + w]
        if left + w > width:
            region = torch.cat([region, rows[:, :, : left + w - width]], dim=2)
        crop.copy_(interpolate(region[None], (size, size), mode="bilinear", antialias=True)[0])
    return crops


def boxes_outside(boxes: Floats, width: int, height: int) -> NDArray[np.bool_]:
    """Returns (P,) True for boxes without usable pixels.

    These are boxes above or below the image, boxes more than one full turn to the left or right of it, and boxes wider
    than the panorama.
    """
    x, _, w, _ = np.asarray(boxes, np.float64).T
    center = x + w / 2
    empty = crop_regions(boxes, width, height)[:, 3] <= 0
    return np.asarray(empty | (center < -width) | (center > 2 * width) | (w > width))


def _round_half_up(values: Floats) -> Ints:
    return np.asarray(np.floor(values + 0.5).astype(np.int64))
