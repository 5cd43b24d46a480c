"""A unit's plan + what became of its frames + its features -> the shard: nothing lost, everything accounted for."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from extract.annotations.spatial import spatial_features
from extract.images.crops import outside
from extract.units.plan import PlannedUnit
from extract.units.prepare import PreparedFrame, unused_frame
from store.format.shard import Shard, Skipped
from store.tables import Visual, frame_of_person, subset


def assemble(
    unit: PlannedUnit, outcomes: Sequence[PreparedFrame], visual: Visual, visual_flipped: Visual | None
) -> Shard:
    """The shard of `unit`: persons of usable frames with their features, pairs of stored persons.

    Args:
        outcomes: one for each frame of the unit.
        visual, visual_flipped: (N, D) features of the stored persons, in order.
    """
    tables = unit.tables
    broken = {item.frame for item in unit.skipped if item.kind == "frame"}  # the annotation itself is no list
    good = np.array([not o.reason and name not in broken for o, name in zip(outcomes, tables.frame_name, strict=True)])
    good = good.astype(bool)  # also where there are no frames
    seen = ~np.concatenate([np.empty(0, bool), *(outcome.unseen for outcome in outcomes)])
    stored = subset(tables, good, seen)
    size = np.array([outcome.size for outcome in outcomes], np.int32).reshape(-1, 2)[good]
    a, b = stored.pair.T
    return Shard(
        scene=unit.scene,
        visual=visual,
        visual_flipped=visual_flipped,
        box=stored.box,
        person_id=stored.person_id,
        frame_name=stored.frame_name,
        frame_index=stored.frame_index,
        frame_size=size,
        frame_offset=stored.frame_offset,
        frame_sha256=np.array([outcome.sha256 for outcome in outcomes], np.str_)[good],
        pair=stored.pair,
        spatial=spatial_features(
            stored.box[a], stored.box[b], size[stored.pair_frame], unit.people[good][stored.pair_frame]
        ),
        label=stored.label,
        label_sets=stored.label_sets,
        skipped=(*unit.skipped, *_left_out(unit, outcomes, seen, broken)),
    )


def _left_out(
    unit: PlannedUnit, outcomes: Sequence[PreparedFrame], seen: NDArray[np.bool_], broken: set[str]
) -> list[Skipped]:
    """The frames, persons and pairs that the images left out."""
    tables, scene = unit.tables, unit.scene
    reasons = [outcome.reason for outcome in outcomes]
    names = [str(name) for name in tables.frame_name]
    unusable = [(name, reason) for name, reason in zip(names, reasons, strict=True) if reason and name not in broken]
    skipped = [Skipped("frame", scene, name, "", reason) for name, reason in unusable]
    frames = frame_of_person(tables)
    for row in np.flatnonzero(~seen):
        reason = reasons[frames[row]] or "box_outside"
        skipped.append(Skipped("person", scene, names[frames[row]], str(tables.person_id[row]), reason))
    for (a, b), frame in zip(tables.pair, tables.pair_frame, strict=True):
        if not (seen[a] and seen[b]):
            item = "-".join(map(str, sorted((tables.person_id[a], tables.person_id[b]))))
            skipped.append(Skipped("pair", scene, names[frame], item, reasons[frame] or "partner_skipped"))
    return skipped


def relabel(unit: PlannedUnit, old: Shard) -> Shard:
    """The shard of `unit` with the features of `old`, which has the same frames, people and boxes."""
    outcomes = [_outcome(unit, frame, old) for frame in range(len(unit.tables.frame_name))]
    return assemble(unit, outcomes, old.visual, old.visual_flipped)


def _outcome(unit: PlannedUnit, frame: int, old: Shard) -> PreparedFrame:
    """What became of a frame when `old` was made."""
    tables = unit.tables
    name = str(tables.frame_name[frame])
    boxes = tables.box[tables.frame_offset[frame] : tables.frame_offset[frame + 1]]
    rows = np.flatnonzero(old.frame_name == name)
    if len(rows) == 0:
        reasons = [item.reason for item in old.skipped if item.kind == "frame" and item.frame == name]
        return unused_frame(reasons[0], "", len(boxes))
    width, height = (int(value) for value in old.frame_size[rows[0]])
    unused = unused_frame("", "", len(boxes))
    return replace(
        unused, size=(width, height), sha256=str(old.frame_sha256[rows[0]]), unseen=outside(boxes, width, height)
    )
