"""Independent reimplementations and stated bounds that tests compare with."""

import math

import numpy as np

# largest error of a feature vector in a lower precision: the length of the difference, as a share of the exact length
PRECISION_ERROR = {"bfloat16": 0.05, "float16": 0.006}


def round_half_up(value: float) -> int:
    """Rounds to the nearest integer, and 0.5 upwards."""
    return int(np.floor(value + 0.5))


Box = tuple[float, float, float, float]


def spatial_oracle(a: Box, b: Box, width: int, height: int, people: int) -> list[float]:
    """Returns the eight spatial features of one pair, computed one by one in plain Python."""
    (xa, ya, wa, ha), (xb, yb, wb, hb) = a, b
    dx = abs((xa + wa / 2) - (xb + wb / 2))
    while dx > width:  # a box across the seam may be given on either side of it
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
