"""The tables of a data set whose images are read later: what end-to-end training works from."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from extract.annotations.jrdb import IMAGES, image_path, scene_names
from extract.images.crops import outside
from extract.images.read import FrameError, frame_size
from extract.units.assemble import assemble
from extract.units.plan import PlannedUnit, check_limit, known_skips, plan_units, planned_items
from extract.units.prepare import PreparedFrame, unused_frame
from store.format.manifest import Selection
from store.format.shard import Skipped
from store.reader import join_tables
from store.tables import Tables

_PROBES = 4  # threads; a header is read in a fraction of a millisecond


@dataclass(frozen=True)
class Dataset:
    """Annotated frames whose images can be opened, with their sizes and the pairs' spatial features."""

    tables: Tables
    image_paths: list[Path]  # (F,)
    skipped: tuple[Skipped, ...]


def read_dataset(data_path: Path, selection: Selection, max_skipped: float) -> Dataset:
    """Reads the annotations, and of each image the header alone.

    Raises:
        DataError: the annotations cannot be read.
        TooManySkippedError: a larger share than `max_skipped` is unusable.
    """
    units = plan_units(data_path, selection)
    check_limit(known_skips(units), planned_items(units), max_skipped)
    nothing = np.empty((0, 0), np.float32)
    shards = [assemble(unit, _probe_frames(data_path, unit), nothing, None) for unit in units]
    skipped = tuple(item for shard in shards for item in shard.skipped)
    check_limit(Counter((item.kind, item.reason) for item in skipped), planned_items(units), max_skipped)
    tables = join_tables(tuple(scene_names(data_path)), shards)
    names = zip(tables.frame_scene, tables.frame_name, strict=True)
    return Dataset(tables, [image_path(data_path, tables.scenes[scene], str(name)) for scene, name in names], skipped)


def _probe_frames(data_path: Path, unit: PlannedUnit) -> list[PreparedFrame]:
    frames = range(len(unit.tables.frame_name))
    with ThreadPoolExecutor(_PROBES) as pool:
        return list(pool.map(partial(_probe, data_path, unit), frames))


def _probe(data_path: Path, unit: PlannedUnit, frame: int) -> PreparedFrame:
    tables = unit.tables
    boxes = tables.box[tables.frame_offset[frame] : tables.frame_offset[frame + 1]]
    try:
        path = image_path(data_path, unit.scene, str(tables.frame_name[frame]))
        size = frame_size(path, data_path / IMAGES)
    except FrameError as error:
        return unused_frame(error.reason, str(error), len(boxes))
    return replace(unused_frame("", "", len(boxes)), size=size, unseen=outside(boxes, *size))
