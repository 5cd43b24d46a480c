"""The eight spatial features of a pair, from its two boxes alone.

Formulas: the JRDB pair features of the training guide; on a full-circle panorama the horizontal distance is the
shorter way round.
"""

import numpy as np

from store.tables import Floats, Ints

SPATIAL_NAMES = (
    "horizontal_gap",
    "height_ratio",
    "ground_distance",
    "vertical_overlap",
    "area_ratio",
    "center_distance",
    "vertical_gap",
    "scene_density",
)
GEOMETRIC = slice(0, 7)
SCENE_CONTEXT = slice(7, 8)


def spatial_features(box_a: Floats, box_b: Floats, size: Ints, people: Ints) -> Floats:
    """(M, 8) float32 features, the same for (A, B) and (B, A) and under rolling the panorama.

    Args:
        box_a, box_b: (M, 4) x y width height in pixels, widths and heights above 0; x may lie over the seam.
        size: (M, 2) width and height of the pair's frame in pixels.
        people: (M,) how many people the frame has.
    """
    xa, ya, wa, ha = np.asarray(box_a, np.float64).T
    xb, yb, wb, hb = np.asarray(box_b, np.float64).T
    width, height = np.asarray(size, np.float64).T
    dx = np.abs((xa + wa / 2) - (xb + wb / 2)) % width
    dx = np.minimum(dx, width - dx)
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
