"""Antialiased limbs by signed distance, painted on small premultiplied patches and laid onto a panorama.

Layout is channel first: patches are (4, h, w) float32 with premultiplied RGB in [0, 255] and alpha in [0, 1];
a panorama is (3, H, W) float32, RGB in [0, 255].
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Colour = tuple[float, float, float]  # RGB, [0, 255]


@dataclass(frozen=True)
class Fabric:
    """A surface pattern: waves `along` and `across` a limb (radians per body height), and their `strength` (0-1)."""

    along: float = 0.0
    across: float = 0.0
    strength: float = 0.0


PLAIN = Fabric()


@dataclass(frozen=True)
class Limb:
    """A tapered capsule from `a` to `b` (x to the right, y down) with radii `ra` and `rb`, all in body heights."""

    a: tuple[float, float]
    b: tuple[float, float]
    ra: float
    rb: float
    colour: Colour
    fabric: Fabric = PLAIN
    opacity: float = 1.0


@dataclass(frozen=True)
class Patch:
    """A patch and its pixel grid in body heights: `x` (w,), `y` (h,), rising evenly; `soft` is the edge's width."""

    pixels: Floats  # (4, h, w)
    x: Floats
    y: Floats
    soft: float


def new_patch(height: int, width: int, scale: tuple[float, float], origin: tuple[float, float], blur: float) -> Patch:
    """An empty patch of `height` x `width` pixels.

    Args:
        scale: pixels per body height, horizontally and vertically.
        origin: the pixel (x, y) at which body coordinates are (0, 0).
        blur: width of an edge in pixels; 1 is sharp.
    """
    x = ((np.arange(width) + 0.5 - origin[0]) / scale[0]).astype(np.float32)
    y = ((np.arange(height) + 0.5 - origin[1]) / scale[1]).astype(np.float32)
    pixels = np.zeros((4, height, width), np.float32)
    return Patch(pixels, x, y, blur / float(np.sqrt(scale[0] * scale[1])))


def paint(patch: Patch, limb: Limb) -> None:
    """Paints one limb over what the patch holds; only the limb's own bounding box is touched."""
    reach = max(limb.ra, limb.rb) + patch.soft
    rows = _span(patch.y, min(limb.a[1], limb.b[1]) - reach, max(limb.a[1], limb.b[1]) + reach)
    columns = _span(patch.x, min(limb.a[0], limb.b[0]) - reach, max(limb.a[0], limb.b[0]) + reach)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    px, py = patch.x[columns] - limb.a[0], patch.y[rows, None] - limb.a[1]
    dx, dy = limb.b[0] - limb.a[0], limb.b[1] - limb.a[1]
    length = max(dx * dx + dy * dy, 1e-8)
    t = np.clip(px * (dx / length) + py * (dy / length), 0.0, 1.0)  # (h, w): 0 at a, 1 at b
    qx, qy = px - t * dx, py - t * dy
    radius = limb.ra + t * (limb.rb - limb.ra)
    distance = np.sqrt(qx * qx + qy * qy)
    alpha = np.clip(0.5 - (distance - radius) / patch.soft, 0.0, 1.0) * limb.opacity
    target = patch.pixels[:, rows, columns]
    target *= 1.0 - alpha
    target[3] += alpha
    alpha *= _light(limb, qx, qy, t * float(np.sqrt(length)), radius)
    target[:3] += alpha * np.asarray(limb.colour, np.float32)[:, None, None]


def lay(panorama: Floats, patch: Floats, left: int, top: int) -> None:
    """Lays a patch onto the panorama with its corner at (left, top); columns wrap over the seam, rows are cut."""
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


def _span(grid: Floats, low: float, high: float) -> slice:
    """The indices of an evenly rising grid that lie within [low, high]."""
    return slice(int(np.searchsorted(grid, low)), int(np.searchsorted(grid, high)))


def _light(limb: Limb, qx: Floats, qy: Floats, along: Floats, radius: Floats) -> Floats:
    """Brightness (h, w) of a round limb lit from the upper left, with its fabric."""
    light = 1.0 - np.float32(0.26) * np.clip((qx + 0.5 * qy) / (radius + 1e-6) + 0.15, -0.5, 1.0)
    if limb.fabric.strength:
        across = qx if abs(limb.b[1] - limb.a[1]) > abs(limb.b[0] - limb.a[0]) else qy
        waves = np.ones_like(light)
        if limb.fabric.along:
            waves *= np.sin(limb.fabric.along * along)
        if limb.fabric.across:
            waves *= np.sin(limb.fabric.across * across)
        light *= 1.0 + limb.fabric.strength * waves
    return np.asarray(light)
