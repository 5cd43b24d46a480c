"""Independent reimplementations that tests compare with."""

import math

import numpy as np


def half_up(value: float) -> int:
    return int(np.floor(value + 0.5))


Box = tuple[float, float, float, float]


def plain(a: Box, b: Box, width: int, height: int, people: int) -> list[float]:
    """The table of features, one number after another."""
    (xa, ya, wa, ha), (xb, yb, wb, hb) = a, b
    dx = abs((xa + wa / 2) - (xb + wb / 2))
    while dx > width:  # a box over the seam may be given on either side of it
        dx -= width
    dx = min(dx, width - dx)
    dy = abs((ya + ha / 2) - (yb + hb / 2))
    return [
        (dx - (wa + wb) / 2) / width,
        min(ha, hb) / max(ha, hb),
        dx / width,
        max(0, min(ya + ha, yb + hb) - max(ya, yb)) / min(ha, hb),
        min(wa * ha, wb * hb) / max(wa * ha, wb * hb),
        math.sqrt(dx**2 + dy**2) / math.sqrt(wa * ha + wb * hb),
        dy / height,
        min(people / 10, 1),
    ]
