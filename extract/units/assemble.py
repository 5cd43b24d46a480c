"""Builds a unit's shard from its plan, its prepared frames and its features.

Each planned frame, person and pair ends up either in the shard's rows or in its list of skipped items.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from extract.annotations.spatial import spatial_features
from extract.images.crops import boxes_outside
from extract.units.plan import PlannedUnit
from extract.units.prepare import PreparedFrame, frame_without_crops, unusable_frame
from store.format.shard import Shard, Skipped
from store.tables import Visual, frame_of_person, subset


def assemble_shard(
    unit: PlannedUnit, frames: Sequence[PreparedFrame], visual: Visual, visual_flipped: Visual | None, panorama: str
) -> Shard:
    """Returns the shard of `unit`: usable frames, persons inside their image, and pairs of two such persons.

    Args:
        frames: one for each planned frame.
        visual: (N, D) features of the persons inside their image, in order.
        visual_flipped: (N, D) features of their mirrored crops, or None.
        panorama: see `configs.panorama.edges_touch`.
    """
    tables = unit.tables
    unusable = {item.frame for item in unit.skipped if item.kind == "frame"}  # no usable annotation
    usable = [not frame.reason and name not in unusable for frame, name in zip(frames, tables.frame_name, strict=True)]
    in_shard = np.array(usable, bool)
    inside = ~np.concatenate([np.empty(0, bool), *(frame.outside for frame in frames)])
    stored = subset(tables, in_shard, inside)
    size = np.array([frame.size for frame in frames], np.int32).reshape(-1, 2)[in_shard]
    people = unit.people_per_frame[in_shard][stored.pair_frame]
    a, b = stored.pair.T
    spatial = spatial_features(stored.box[a], stored.box[b], size[stored.pair_frame], people, panorama)
    return Shard.from_tables(
        replace(stored, frame_size=size, spatial=spatial),
        scene=unit.scene,
        visual=visual,
        visual_flipped=visual_flipped,
        frame_sha256=np.array([frame.sha256 for frame in frames], np.str_)[in_shard],
        skipped=(*unit.skipped, *_skipped_by_images(unit, frames, inside, unusable)),
    )


def _skipped_by_images(
    unit: PlannedUnit, frames: Sequence[PreparedFrame], inside: NDArray[np.bool_], unusable: set[str]
) -> list[Skipped]:
    """Lists the frames, persons and pairs that are left out because of their image."""
    tables, scene = unit.tables, unit.scene
    reasons = [frame.reason for frame in frames]
    names = [str(name) for name in tables.frame_name]
    skipped = [
        Skipped("frame", scene, name, "", frame.reason, frame.message)
        for name, frame in zip(names, frames, strict=True)
        if frame.reason and name not in unusable
    ]
    frame_of = frame_of_person(tables)
    for row in np.flatnonzero(~inside):
        frame = frames[frame_of[row]]
        reason, found = frame.reason or "box_outside", frame.message
        if not found:
            found = f"box {tables.box[row].tolist()} in an image of {frame.size[0]} x {frame.size[1]} pixels"
        skipped.append(Skipped("person", scene, names[frame_of[row]], str(tables.person_id[row]), reason, found))
    for (a, b), row in zip(tables.pair, tables.pair_frame, strict=True):
        if not (inside[a] and inside[b]):
            item = "-".join(map(str, sorted((tables.person_id[a], tables.person_id[b]))))
            skipped.append(Skipped("pair", scene, names[row], item, reasons[row] or "partner_skipped"))
    return skipped


def assemble_from_features(unit: PlannedUnit, old: Shard, panorama: str) -> Shard:
    """Returns the shard of `unit` with the features of `old`, whose frames, persons and boxes are the same.

    Pairs, labels and spatial features come from the current annotations.
    """
    frames = [_frame_from_shard(unit, frame, old, panorama) for frame in range(unit.frames)]
    return assemble_shard(unit, frames, old.visual, old.visual_flipped, panorama)


def _frame_from_shard(unit: PlannedUnit, frame: int, old: Shard, panorama: str) -> PreparedFrame:
    """Restores the prepared frame, without crops, from which `old` was assembled."""
    name, boxes = str(unit.tables.frame_name[frame]), unit.boxes_in(frame)
    rows = np.flatnonzero(old.frame_name == name)
    if len(rows) == 0:
        reasons = [item.reason for item in old.skipped if item.kind == "frame" and item.frame == name]
        return unusable_frame(reasons[0], "", len(boxes))
    width, height = (int(value) for value in old.frame_size[rows[0]])
    sha256 = str(old.frame_sha256[rows[0]])
    outside = boxes_outside(boxes, width, height, panorama)
    return frame_without_crops(outside, size=(width, height), sha256=sha256)
