"""Loads an annotated dataset without features: the tables and image paths that end-to-end training works from."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from configs.panorama import AUTO
from extract.annotations.jrdb import IMAGES, image_path, scene_names
from extract.images.crops import boxes_outside
from extract.images.read import FrameError, frame_size
from extract.units.assemble import assemble_shard
from extract.units.plan import PlannedUnit, plan_units
from extract.units.prepare import PreparedFrame, frame_without_crops, unusable_frame
from extract.units.skips import check_skip_limit, ledger_before_reading, shard_ledger
from store.format.ledger import Ledger
from store.format.manifest import Selection
from store.format.shard import join_tables
from store.tables import Tables

_THREADS = 4  # reading a header takes a fraction of a millisecond


@dataclass(frozen=True)
class Dataset:
    """Frames with a readable image header: their tables, with frame sizes and spatial features, and image paths."""

    tables: Tables
    image_paths: list[Path]  # (F,)
    ledger: Ledger


def read_dataset(data_path: Path, selection: Selection, max_skipped: float, panorama: str = AUTO) -> Dataset:
    """Reads all annotations and the header of each image; `panorama` as in `configs.panorama.edges_touch`.

    Raises:
        DataError: the annotations cannot be read.
        TooManySkippedError: more than the share `max_skipped` of the frames, persons or pairs is unusable.
    """
    units = plan_units(data_path, selection)
    check_skip_limit(ledger_before_reading(units), max_skipped)
    no_features = np.empty((0, 0), np.float32)
    shards = [
        assemble_shard(unit, _read_headers(data_path, unit, panorama), no_features, None, panorama) for unit in units
    ]
    ledger = sum(map(shard_ledger, units, shards), Ledger.empty())
    check_skip_limit(ledger, max_skipped)
    tables = join_tables(tuple(scene_names(data_path)), shards)
    names = zip(tables.frame_scene, tables.frame_name, strict=True)
    paths = [image_path(data_path, tables.scenes[scene], str(name)) for scene, name in names]
    return Dataset(tables, paths, ledger)


def _read_headers(data_path: Path, unit: PlannedUnit, panorama: str) -> list[PreparedFrame]:
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(partial(_read_header, data_path, unit, panorama), range(unit.frames)))


def _read_header(data_path: Path, unit: PlannedUnit, panorama: str, frame: int) -> PreparedFrame:
    """`prepare_frame` without decoding: reads only the image's size."""
    boxes = unit.boxes_in(frame)
    try:
        path = image_path(data_path, unit.scene, str(unit.tables.frame_name[frame]))
        size = frame_size(path, data_path / IMAGES)
    except FrameError as error:
        return unusable_frame(error.reason, str(error), len(boxes))
    return frame_without_crops(boxes_outside(boxes, *size, panorama), size=size)
