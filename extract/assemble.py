"""A unit's plan + what became of its frames + its features -> the shard: nothing lost, everything accounted for."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from extract.plan import PlannedUnit
from extract.prepare import PreparedFrame
from extract.spatial import spatial_features
from store.shard import Shard, Skipped
from store.subset import frame_of_person, subset
from store.tables import Visual


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
