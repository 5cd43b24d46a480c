"""The columns of frames, persons and pairs, declared once, and the flat tables of numpy arrays that consist of them.

Joining, selecting, checking and storing tables loop over `COLUMNS`. To add a column, declare it there and add a field
to `Tables` or `store.format.shard.Shard`, or to both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Mask = NDArray[np.bool_]
Visual = NDArray[np.floating | np.uint8]  # features, or the pixels of crops

AXES = FRAME, PERSON, PAIR = ("frame", "person", "pair")
FROM_RECIPE = -1  # the width of the features: `Recipe.visual_dim`


@dataclass(frozen=True)
class Column:
    """One array with a row per frame, person or pair."""

    axis: str  # one of AXES
    dtype: str  # in memory; "" for the recipe's
    kinds: str  # numpy kinds that a file may contain; "S" is text, stored as UTF-8
    width: int = 0  # values per row; 0 for a one-dimensional array


COLUMNS: dict[str, Column] = {  # in the order of a shard's datasets
    "visual": Column(PERSON, "", "fu", FROM_RECIPE),  # pixels are unsigned
    "visual_flipped": Column(PERSON, "", "f", FROM_RECIPE),  # only with two views
    "box": Column(PERSON, "float64", "f", 4),
    "person_id": Column(PERSON, "int64", "i"),
    "frame_name": Column(FRAME, "str", "S"),
    "frame_index": Column(FRAME, "int32", "i"),
    "frame_size": Column(FRAME, "int32", "i", 2),
    "frame_offset": Column(FRAME, "int64", "i"),  # one row more than there are frames
    "frame_sha256": Column(FRAME, "str", "S"),
    "pair": Column(PAIR, "int64", "i", 2),
    "spatial": Column(PAIR, "float32", "f", 8),
    "label": Column(PAIR, "int32", "i"),
    # derived from the other columns, not stored
    "frame_scene": Column(FRAME, "int32", "i"),
    "pair_frame": Column(PAIR, "int32", "i"),
}
FEATURES = ("visual", "visual_flipped")
# These columns contain row numbers or label numbers. Whoever joins, splits or selects rows renumbers them.
NUMBERING = {"frame_offset", "pair", "label", "frame_scene", "pair_frame"}


@dataclass(frozen=True)
class Tables:
    """F frames, N persons and M pairs of one or more scenes, in scene and frame order.

    The persons of frame f are the rows `frame_offset[f]:frame_offset[f + 1]`.
    """

    scenes: tuple[str, ...]
    frame_scene: Ints  # (F,) int32, index into `scenes`
    frame_name: NDArray[np.str_]  # (F,) for example "000015.jpg"
    frame_index: Ints  # (F,) int32, position among the annotated frames of the scene; frame intervals count this
    frame_size: Ints  # (F, 2) int32, width and height in pixels; 0 if no image has been read
    frame_offset: Ints  # (F + 1,) int64
    box: Floats  # (N, 4) float64, x y width height in pixels of the panorama
    person_id: Ints  # (N,) int64, track id, stable within a scene
    pair: Ints  # (M, 2) int64, rows of the person table
    pair_frame: Ints  # (M,) int32, rows of the frame table
    spatial: Floats  # (M, 8) float32, see extract.annotations.spatial
    label: Ints  # (M,) int32, index into `label_sets`
    label_sets: tuple[tuple[str, ...], ...]  # the annotated labels; a pair may have several


@dataclass(frozen=True)
class Features:
    """A loaded store: its tables and the backbone's output for every person."""

    tables: Tables
    visual: Floats  # (N, D) float16 or float32
    visual_flipped: Floats | None  # (N, D) of the mirrored crops, if the store has two views
    fingerprint: str


def column_names(table: Any) -> list[str]:
    """The columns that are fields of the dataclass `table`, or of its instance, in the order of COLUMNS."""
    own = {item.name for item in fields(table)}
    return [name for name in COLUMNS if name in own]


def columns_of(table: Any) -> dict[str, NDArray[Any]]:
    """The columns of the dataclass instance `table` by name, without those that are None."""
    columns = {name: getattr(table, name) for name in column_names(table)}
    return {name: column for name, column in columns.items() if column is not None}


def select_rows(table: Any, rows: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The selected rows of every column of `table` but `frame_offset`, by name; row numbers keep their values.

    Args:
        rows: for each axis a slice or a mask.
    """
    return {
        name: column[rows[COLUMNS[name].axis]] for name, column in columns_of(table).items() if name != "frame_offset"
    }


def join_rows(name: str, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The arrays of column `name` one after another; an empty column if there are no arrays."""
    column = COLUMNS[name]
    shape = (0, column.width) if column.width else (0,)
    return np.concatenate(arrays) if arrays else np.empty(shape, column.dtype)


def persons_per_frame(tables: Tables) -> NDArray[Any]:
    """(F,) the number of persons in each frame."""
    return np.diff(tables.frame_offset)


def frame_of_person(tables: Tables) -> NDArray[Any]:
    """(N,) the frame row of each person."""
    return np.repeat(np.arange(len(tables.frame_name)), persons_per_frame(tables))


def paired_persons(tables: Tables) -> Mask:
    """(N,) which persons belong to at least one pair."""
    mask = np.zeros(len(tables.box), bool)
    mask[tables.pair] = True
    return mask


def subset(tables: Tables, frames: Mask, persons: Mask) -> Tables:
    """The tables of the marked frames (F,) and persons (N,).

    Drops the persons of unmarked frames, and the pairs that have an unmarked person.
    """
    frame_of = frame_of_person(tables)
    persons = persons & frames[frame_of]
    pairs = persons[tables.pair].all(axis=1)
    selected = select_rows(tables, {FRAME: frames, PERSON: persons, PAIR: pairs})
    new_frame = np.cumsum(frames) - 1
    new_person = np.cumsum(persons) - 1
    counts = np.bincount(new_frame[frame_of[persons]], minlength=int(frames.sum()))
    renumbered = {
        "frame_offset": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "pair": new_person[selected["pair"]].reshape(-1, 2).astype(np.int64),
        "pair_frame": new_frame[selected["pair_frame"]].astype(np.int32),
    }
    return replace(tables, **(selected | renumbered))
