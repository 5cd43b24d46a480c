"""The flat tables that every stage of the way works on: frames, persons and pairs, as numpy arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Visual = NDArray[np.floating | np.uint8]  # features, or the crops themselves


@dataclass(frozen=True)
class Tables:
    """F frames, N persons and M pairs of one or more scenes, in scene and frame order.

    Persons of frame f are rows `frame_offset[f]:frame_offset[f + 1]`.
    """

    scenes: tuple[str, ...]
    frame_scene: Ints  # (F,) int32, index into `scenes`
    frame_name: NDArray[np.str_]  # (F,) e.g. "000015.jpg"
    frame_index: Ints  # (F,) int32, position among the scene's annotated frames; intervals count this
    frame_size: Ints  # (F, 2) int32, width and height in pixels; 0 where no image has been read
    frame_offset: Ints  # (F + 1,) int64
    box: Floats  # (N, 4) float64, x y width height in pixels of the panorama
    person_id: Ints  # (N,) int64, track id, stable within a scene
    pair: Ints  # (M, 2) int64, rows of the person table
    pair_frame: Ints  # (M,) int32, rows of the frame table
    spatial: Floats  # (M, 8) float32, see extract.spatial
    label: Ints  # (M,) int32, index into `label_sets`
    label_sets: tuple[tuple[str, ...], ...]  # the labels as annotated, several a pair possible


@dataclass(frozen=True)
class Features:
    """A loaded store: its tables and the backbone's output for every person."""

    tables: Tables
    visual: Floats  # (N, D) float16 or float32
    visual_flipped: Floats | None  # (N, D), the mirrored crops, where the store has two views
    fingerprint: str
