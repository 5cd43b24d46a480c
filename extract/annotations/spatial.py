"""The eight spatial features of a pair, computed from its two boxes.

Formulas: the JRDB pair features of the training guide. A panorama is a full circle, so horizontal distances in it are
measured along the shorter way around.
"""

import numpy as np

from configs.panorama import AUTO, edges_touch
from store.format.descriptions import DESCRIPTIONS
from store.tables import Floats, Ints

SPATIAL_NAMES = DESCRIPTIONS["spatial"].columns
SPATIAL_DIM = len(SPATIAL_NAMES)
NUM_GEOMETRIC = 7  # the first ones describe the two boxes; the last describes the scene


def spatial_features(box_a: Floats, box_b: Floats, size: Ints, people: Ints, panorama: str = AUTO) -> Floats:
    """Returns (M, 8) float32 features in the order of SPATIAL_NAMES.

    They are symmetric in A and B and do not change when a panorama is rolled.

    Args:
        box_a, box_b: (M, 4) x y width height in pixels; width and height are positive, and a box may cross the seam.
        size: (M, 2) width and height of the pair's frame in pixels.
        people: (M,) number of people in the pair's frame.
        panorama: see `configs.panorama.edges_touch`.
    """
    xa, ya, wa, ha = np.asarray(box_a, np.float64).T
    xb, yb, wb, hb = np.asarray(box_b, np.float64).T
    width, height = np.asarray(size, np.float64).T
    dx = np.abs((xa + wa / 2) - (xb + wb / 2))
    around = dx % width
    dx = np.where(edges_touch(panorama, width, height), np.minimum(around, width - around), dx)
    dy = np.abs((ya + ha / 2) - (yb + hb / 2))
    overlap = np.maximum(0, np.minimum(ya + ha, yb + hb) - np.maximum(ya, yb))
    area_a, area_b = wa * ha, wb * hb
    columns = [
        (dx - (wa + wb) / 2) / width,
        np.minimum(ha, hb) / np.maximum(ha, hb),
        dx / width,
        overlap / np.minimum(ha, hb),
        np.minimum(area_a, area_b) / np.maximum(area_a, area_b),
        np.sqrt(dx**2 + dy**2) / np.sqrt(area_a + area_b),
        dy / height,
        np.minimum(np.asarray(people, np.float64) / 10, 1),
    ]
    return np.stack(columns, axis=1).astype(np.float32)
