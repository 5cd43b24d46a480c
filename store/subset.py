"""Smaller tables out of larger ones, rows renumbered."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.tables import Tables

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
