"""The flat tables that every stage of the way works on: frames, persons and pairs, as numpy arrays."""

from dataclasses import dataclass, replace
from typing import Any

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
    spatial: Floats  # (M, 8) float32, see extract.annotations.spatial
    label: Ints  # (M,) int32, index into `label_sets`
    label_sets: tuple[tuple[str, ...], ...]  # the labels as annotated, several a pair possible


@dataclass(frozen=True)
class Features:
    """A loaded store: its tables and the backbone's output for every person."""

    tables: Tables
    visual: Floats  # (N, D) float16 or float32
    visual_flipped: Floats | None  # (N, D), the mirrored crops, where the store has two views
    fingerprint: str


Mask = NDArray[np.bool_]


def persons_per_frame(tables: Tables) -> NDArray[Any]:
    """(F,) how many persons each frame has."""
    return np.diff(tables.frame_offset)


def frame_of_person(tables: Tables) -> NDArray[Any]:
    """(N,) the frame row of each person."""
    return np.repeat(np.arange(len(tables.frame_name)), persons_per_frame(tables))


def paired_persons(tables: Tables) -> Mask:
    """(N,) which persons stand in a pair."""
    mask = np.zeros(len(tables.box), bool)
    mask[tables.pair] = True
    return mask


def subset(tables: Tables, frames: Mask, persons: Mask) -> Tables:
    """The frames (F,) and persons (N,) that are marked, without persons of other frames and pairs of other persons."""
    frame_of = frame_of_person(tables)
    persons = persons & frames[frame_of]
    pairs = persons[tables.pair].all(axis=1)
    new_frame = np.cumsum(frames) - 1
    new_person = np.cumsum(persons) - 1
    counts = np.bincount(new_frame[frame_of[persons]], minlength=int(frames.sum()))
    return replace(
        tables,
        frame_scene=tables.frame_scene[frames],
        frame_name=tables.frame_name[frames],
        frame_index=tables.frame_index[frames],
        frame_size=tables.frame_size[frames],
        frame_offset=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        box=tables.box[persons],
        person_id=tables.person_id[persons],
        pair=new_person[tables.pair[pairs]].reshape(-1, 2).astype(np.int64),
        pair_frame=new_frame[tables.pair_frame[pairs]].astype(np.int32),
        spatial=tables.spatial[pairs],
        label=tables.label[pairs],
    )
