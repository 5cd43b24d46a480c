"""The rows of one unit of a store in memory: joining, splitting and checking them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import IntegrityError
from store.format.paths import VERIFY
from store.tables import (
    COLUMNS,
    FEATURES,
    FRAME,
    FROM_RECIPE,
    NUMBERING,
    PAIR,
    PERSON,
    Floats,
    Ints,
    Tables,
    Visual,
    column_names,
    columns_of,
    join_rows,
    select_rows,
)


@dataclass(frozen=True)
class Skipped:
    """A planned item that could not be stored, and the reason."""

    kind: str  # "frame", "person" or "pair"
    scene: str
    frame: str
    item: str  # person or pair id; "" for a frame
    reason: str
    # What was found in place of a usable item, for messages. It is neither stored nor part of a unit's digest.
    found: str = field(default="", repr=False, compare=False)

    def to_json(self) -> str:
        """One line of skipped.jsonl, in ASCII."""
        stored = {name: value for name, value in vars(self).items() if name != "found"}
        return json.dumps(stored, sort_keys=True)

    def text(self) -> str:
        """Scene, frame and person or pair, and what was found there."""
        where = f"{self.scene} {self.frame}" + (f" {self.kind} {self.item}" if self.kind != FRAME else "")
        return f"{where} ({self.found})" if self.found else where


def skipped_lines(items: Iterable[Skipped]) -> str:
    """The text of skipped.jsonl for `items`: one line each."""
    return "".join(f"{item.to_json()}\n" for item in items)


@dataclass(frozen=True)
class Shard:
    """The rows of one unit: F frames, N persons and M pairs of one scene. Columns as in store.tables."""

    scene: str
    visual: Visual  # (N, D) float16 or float32; uint8 for crops
    visual_flipped: Visual | None
    box: Floats  # (N, 4) float64
    person_id: Ints  # (N,) int64
    frame_name: NDArray[np.str_]  # (F,)
    frame_index: Ints  # (F,) int32
    frame_size: Ints  # (F, 2) int32
    frame_offset: Ints  # (F + 1,) int64
    frame_sha256: NDArray[np.str_]  # (F,) of the image files' bytes
    pair: Ints  # (M, 2) int64, rows of this shard
    spatial: Floats  # (M, 8) float32
    label: Ints  # (M,) int32
    label_sets: tuple[tuple[str, ...], ...]
    skipped: tuple[Skipped, ...]
    attributes: dict[str, str] = field(default_factory=dict)  # recipe, digest, visual_digest

    @classmethod
    def from_tables(
        cls,
        tables: Tables,
        *,
        scene: str,
        visual: Visual,
        visual_flipped: Visual | None,
        frame_sha256: NDArray[np.str_],
        skipped: tuple[Skipped, ...],
    ) -> "Shard":
        """The rows of `tables` with their features and the checksums of their images."""
        shared: dict[str, Any] = {name: getattr(tables, name) for name in _SHARED}
        return cls(
            scene=scene,
            visual=visual,
            visual_flipped=visual_flipped,
            frame_sha256=frame_sha256,
            label_sets=tables.label_sets,
            skipped=skipped,
            **shared,
        )


_SHARED = [name for name in column_names(Tables) if name in column_names(Shard)]


def without_features(shard: Shard) -> Shard:
    """The shard without features. Its other columns are copied, so the bytes that they were views of can be freed."""
    copies: dict[str, Any] = {name: column.copy() for name, column in columns_of(shard).items() if name not in FEATURES}
    return replace(shard, visual=np.empty((0, 0), shard.visual.dtype), visual_flipped=None, **copies)


def join_tables(scenes: tuple[str, ...], shards: Sequence[Shard]) -> Tables:
    """The tables of several shards as one, with rows and labels renumbered; `scenes` gives the order of the scenes."""
    plain = [name for name in _SHARED if name not in NUMBERING]
    joined = {name: join_rows(name, [getattr(shard, name) for shard in shards]) for name in plain}
    persons = np.cumsum([0] + [len(shard.box) for shard in shards])  # the first row of each shard
    offset = np.concatenate([[0]] + [shard.frame_offset[1:] + persons[i] for i, shard in enumerate(shards)])
    pair = join_rows("pair", [shard.pair + persons[i] for i, shard in enumerate(shards)])
    label_sets, label = _join_labels(shards)
    scene_number = {scene: index for index, scene in enumerate(scenes)}
    scene_of_shard = np.array([scene_number[shard.scene] for shard in shards], np.int32)
    frames = np.array([len(shard.frame_name) for shard in shards], np.int64)
    return Tables(
        scenes=scenes,
        frame_scene=np.repeat(scene_of_shard, frames),
        frame_offset=offset.astype(np.int64),
        pair=pair,
        pair_frame=(np.searchsorted(offset, pair[:, 0], side="right") - 1).astype(np.int32),
        label=label,
        label_sets=label_sets,
        **joined,
    )


def _join_labels(shards: Sequence[Shard]) -> tuple[tuple[tuple[str, ...], ...], Ints]:
    """The sorted label sets of all shards, and the label (M,) of every pair as an index into them."""
    label_sets = sorted({labels for shard in shards for labels in shard.label_sets})
    number = {labels: index for index, labels in enumerate(label_sets)}
    # a shard without label sets has no pairs either; [0] only keeps the empty lookup valid
    labels = [np.array([number[s] for s in shard.label_sets] or [0], np.int32)[shard.label] for shard in shards]
    return tuple(label_sets), join_rows("label", labels)


def slice_shard(whole: Shard, rows: Mapping[str, slice]) -> Shard:
    """The rows of one unit out of the joined rows `whole`, as views, with row numbers that start at 0.

    Args:
        rows: the unit's rows on each axis.
    """
    first, frames = rows[PERSON].start, rows[FRAME]
    selected = select_rows(whole, rows)
    renumbered = {
        "frame_offset": whole.frame_offset[frames.start : frames.stop + 1] - first,
        "pair": selected["pair"] - first,
    }
    return replace(whole, **(selected | renumbered))


def check_rows(shard: Shard, name: str) -> None:
    """Raises IntegrityError if a column has the wrong shape, or row or label numbers that do not exist.

    Args:
        name: of the file, for the message.
    """
    rows = {FRAME: len(shard.frame_name), PERSON: len(shard.visual), PAIR: len(shard.pair)}
    for key, column in columns_of(shard).items():
        if column.shape != _expected_shape(key, rows, shard.visual.shape[1]) or not _numbers_exist(shard, key):
            raise IntegrityError(f"{name}: the rows of {key} contradict the other columns; {VERIFY}")


def _expected_shape(key: str, rows: Mapping[str, int], dim: int) -> tuple[int, ...]:
    column = COLUMNS[key]
    count = rows[column.axis] + (key == "frame_offset")
    width = dim if column.width == FROM_RECIPE else column.width
    return (count, width) if column.width else (count,)


def _numbers_exist(shard: Shard, key: str) -> bool:
    persons, offset = len(shard.visual), shard.frame_offset
    if key == "frame_offset":
        return bool(offset[0] == 0 and offset[-1] == persons and (np.diff(offset) >= 0).all())
    if key == "pair":
        return bool(((shard.pair >= 0) & (shard.pair < persons)).all())
    if key == "label":
        return bool(((shard.label >= 0) & (shard.label < len(shard.label_sets))).all())
    return True
