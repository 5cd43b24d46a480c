"""Person crops: boxes are padded, cut out, in a 360-degree panorama across the seam, and resized with antialiasing."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from configs.panorama import AUTO, edges_touch
from store.tables import Floats, Ints

PADDING = 0.2  # added on each side, as a share of the box's width and height
BOX_RULE = "round half up; grow each side; wrap at the seam; clip at top and bottom"
INTERPOLATION = "bilinear, antialiased, uint8"


def crop_regions(boxes: Floats, width: int, height: int, panorama: str = AUTO) -> Ints:
    """Returns (P, 4) int64 left, top, width and height of the padded boxes in whole pixels.

    In a panorama, `left` is in [0, width); if left + width exceeds the image's width, the region continues at the left
    edge. In an ordinary image, left and right are clipped to the image. Top and bottom are clipped in both. Coordinates
    are rounded half up before any arithmetic, so rolling a panorama by n pixels moves each region by exactly n.

    Args:
        boxes: (P, 4) x y width height in pixels; each padded box overlaps at least one pixel of the image.
        width, height: size of the image in pixels.
        panorama: see `configs.panorama.edges_touch`.
    """
    x, y, w, h = np.floor(np.asarray(boxes, np.float64) + 0.5).astype(np.int64).T
    w, h = np.maximum(w, 1), np.maximum(h, 1)
    pad_x, pad_y = _round_half_up(w * PADDING), _round_half_up(h * PADDING)
    top = np.maximum(y - pad_y, 0)
    bottom = np.minimum(y + h + pad_y, height)
    if edges_touch(panorama, width, height):
        left, columns = (x - pad_x) % width, np.minimum(w + 2 * pad_x, width)
    else:
        left = np.maximum(x - pad_x, 0)
        columns = np.minimum(x + w + pad_x, width) - left
    return np.stack([left, top, columns, bottom - top], axis=1)


def crop_people(frame: Tensor, boxes: Floats, size: int, panorama: str = AUTO) -> Tensor:
    """Returns the crops of the persons in one frame: (P, 3, size, size) uint8, channels last in memory.

    Args:
        frame: (3, H, W) uint8 RGB.
        boxes: (P, 4) x y width height in pixels.
        size: width and height of a crop in pixels.
        panorama: see `configs.panorama.edges_touch`.
    """
    crops = torch.empty((len(boxes), 3, size, size), dtype=torch.uint8, memory_format=torch.channels_last)
    pixels = frame.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # stored as HWC: interpolate is fastest for this
    _, height, width = frame.shape
    regions = crop_regions(boxes, width, height, panorama).tolist()
    for crop, (left, top, w, h) in zip(crops, regions, strict=True):
        rows = pixels[:, top : top + h]
        region = rows[:, :, left : left + w]
        if left + w > width:
            region = torch.cat([region, rows[:, :, : left + w - width]], dim=2)
        crop.copy_(interpolate(region[None], (size, size), mode="bilinear", antialias=True)[0])
    return crops


def boxes_outside(boxes: Floats, width: int, height: int, panorama: str = AUTO) -> NDArray[np.bool_]:
    """Returns (P,) True for boxes without usable pixels.

    These are boxes outside of the image; in a panorama, boxes above or below it, boxes more than one full turn to the
    left or right of it, and boxes wider than it.
    """
    regions = crop_regions(boxes, width, height, panorama)
    if not edges_touch(panorama, width, height):
        return np.asarray((regions[:, 2:] <= 0).any(axis=1))
    x, _, w, _ = np.asarray(boxes, np.float64).T
    center = x + w / 2
    return np.asarray((regions[:, 3] <= 0) | (center < -width) | (center > 2 * width) | (w > width))


def _round_half_up(values: Floats) -> Ints:
    return np.asarray(np.floor(values + 0.5).astype(np.int64))
