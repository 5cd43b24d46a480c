"""Paints antialiased limbs on small patches, by signed distance, and blends patches into a panorama.

A patch is (4, h, w) float32: premultiplied RGB in [0, 255] and alpha in [0, 1]. A panorama is (3, H, W) float32: RGB
in [0, 255].
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Colour = tuple[float, float, float]  # RGB, [0, 255]


@dataclass(frozen=True)
class Pattern:
    """A pattern of brightness waves on a limb."""

    along: float = 0.0  # frequency along the limb, in radians per body height; 0: none
    across: float = 0.0  # frequency across the limb
    strength: float = 0.0  # amplitude, in [0, 1]


PLAIN = Pattern()


@dataclass(frozen=True)
class Limb:
    """A tapered capsule from `a` to `b` (x to the right, y down); all lengths are in body heights."""

    a: tuple[float, float]
    b: tuple[float, float]
    radius_a: float
    radius_b: float
    colour: Colour
    pattern: Pattern = PLAIN
    opacity: float = 1.0


@dataclass(frozen=True)
class Patch:
    """A patch and the positions of its pixel centres, in body heights."""

    pixels: Floats  # (4, h, w)
    x: Floats  # (w,) increasing evenly
    y: Floats  # (h,) increasing evenly
    edge_width: float  # width of the antialiased edges


def new_patch(height: int, width: int, scale: tuple[float, float], origin: tuple[float, float], blur: float) -> Patch:
    """Returns a transparent patch of `height` x `width` pixels.

    Args:
        scale: pixels per body height, horizontally and vertically.
        origin: the pixel (x, y) of the body coordinates (0, 0).
        blur: width of an edge in pixels; 1 is sharp.
    """
    x = ((np.arange(width) + 0.5 - origin[0]) / scale[0]).astype(np.float32)
    y = ((np.arange(height) + 0.5 - origin[1]) / scale[1]).astype(np.float32)
    pixels = np.zeros((4, height, width), np.float32)
    return Patch(pixels, x, y, blur / float(np.sqrt(scale[0] * scale[1])))


def paint(patch: Patch, limb: Limb) -> None:
    """Paints one limb over the patch; only pixels in the limb's bounding box change."""
    reach = max(limb.radius_a, limb.radius_b) + patch.edge_width
    rows = _indices_within(patch.y, min(limb.a[1], limb.b[1]) - reach, max(limb.a[1], limb.b[1]) + reach)
    columns = _indices_within(patch.x, min(limb.a[0], limb.b[0]) - reach, max(limb.a[0], limb.b[0]) + reach)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    px, py = patch.x[columns] - limb.a[0], patch.y[rows, None] - limb.a[1]
    dx, dy = limb.b[0] - limb.a[0], limb.b[1] - limb.a[1]
    length = max(dx * dx + dy * dy, 1e-8)
    t = np.clip(px * (dx / length) + py * (dy / length), 0.0, 1.0)  # (h, w): 0 at a, 1 at b
    qx, qy = px - t * dx, py - t * dy
    radius = limb.radius_a + t * (limb.radius_b - limb.radius_a)
    distance = np.sqrt(qx * qx + qy * qy)
    alpha = np.clip(0.5 - (distance - radius) / patch.edge_width, 0.0, 1.0) * limb.opacity
    target = patch.pixels[:, rows, columns]
    target *= 1.0 - alpha
    target[3] += alpha
    alpha *= _brightness(limb, qx, qy, t * float(np.sqrt(length)), radius)
    target[:3] += alpha * np.asarray(limb.colour, np.float32)[:, None, None]


def blend(panorama: Floats, patch: Floats, left: int, top: int) -> None:
    """Blends a patch into the panorama, its corner at (left, top); columns wrap at the seam and rows are clipped."""
    height, width = panorama.shape[1:]
    first, last = max(0, -top), min(patch.shape[1], height - top)
    if first >= last:
        return
    start = 0
    while start < patch.shape[2]:
        at = (left + start) % width
        count = min(patch.shape[2] - start, width - at)
        piece = patch[:, first:last, start : start + count]
        target = panorama[:, top + first : top + last, at : at + count]
        target *= 1.0 - piece[3]
        target += piece[:3]
        start += count


def _indices_within(grid: Floats, low: float, high: float) -> slice:
    """Returns the indices of the increasing values in `grid` that are within [low, high]."""
    return slice(int(np.searchsorted(grid, low)), int(np.searchsorted(grid, high)))


def _brightness(limb: Limb, qx: Floats, qy: Floats, along: Floats, radius: Floats) -> Floats:
    """Returns the brightness (h, w) of a round limb with its pattern, lit from the upper left."""
    light = 1.0 - np.float32(0.26) * np.clip((qx + 0.5 * qy) / (radius + 1e-6) + 0.15, -0.5, 1.0)
    if limb.pattern.strength:
        across = qx if abs(limb.b[1] - limb.a[1]) > abs(limb.b[0] - limb.a[0]) else qy
        waves = np.ones_like(light)
        if limb.pattern.along:
            waves *= np.sin(limb.pattern.along * along)
        if limb.pattern.across:
            waves *= np.sin(limb.pattern.across * across)
        light *= 1.0 + limb.pattern.strength * waves
    return np.asarray(light)
