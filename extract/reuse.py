"""Takes over the features of a shard whose pairs or labels alone have changed: no image is read, no crop forwarded."""

from dataclasses import replace

import numpy as np

from extract.assemble import assemble
from extract.crops import outside
from extract.plan import PlannedUnit
from extract.prepare import PreparedFrame, unused_frame
from store.shard import Shard


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
