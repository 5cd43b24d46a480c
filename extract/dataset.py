"""Loads an annotated dataset without features: the tables and image paths that end-to-end training works from.

Exactly the frames, persons and pairs are used that an extraction would store: each image is decoded once to see whether
it can be used. An image that was decoded before and is unchanged is not read again (`FileCache`).
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from configs.panorama import AUTO
from extract.annotations.jrdb import IMAGES, image_path, scene_names
from extract.images.file_cache import FileCache
from extract.units.assemble import assemble_shard
from extract.units.plan import PlannedUnit, plan_units
from extract.units.prepare import PreparedFrame, check_frame
from extract.units.skips import check_skip_limit, ledger_before_reading, shard_ledger
from extract.units.workers import read_ahead, single_threaded_pool
from store.format.ledger import Ledger
from store.format.manifest import Selection
from store.format.shard import join_tables
from store.tables import Tables, join_rows

_log = logging.getLogger("stage2")


@dataclass(frozen=True)
class Dataset:
    """Frames with a usable image: their tables, with frame sizes and spatial features, and their images."""

    tables: Tables
    image_paths: list[Path]  # (F,)
    image_sha256: NDArray[np.str_]  # (F,)
    ledger: Ledger


def image_cache(files: Sequence[Path] = ()) -> FileCache:
    """The cache for `read_dataset`, with what was saved to `files`: sha256, width and height of usable images."""
    return FileCache(files, length=3)


def read_dataset(
    data_path: Path,
    selection: Selection,
    max_skipped: float,
    panorama: str = AUTO,
    *,
    scenes: Sequence[str] | None = None,
    known: FileCache | None = None,
) -> Dataset:
    """Reads annotations, and decodes each of their images once.

    Args:
        panorama: see `configs.panorama.edges_touch`.
        scenes: only these, as far as they are in the data; None: all.
        known: of `image_cache`; is updated.

    Raises:
        DataError: the annotations cannot be read.
        TooManySkippedError: more than the share `max_skipped` of the frames, persons or pairs is damaged.
    """
    names = scene_names(data_path)
    wanted = tuple(names if scenes is None else (name for name in names if name in set(scenes)))
    units = plan_units(data_path, selection, wanted) if wanted else []
    check_skip_limit(ledger_before_reading(units), max_skipped)
    frames = _check_images(data_path, units, panorama, known or image_cache())
    no_features = np.empty((0, 0), np.float32)
    shards = [assemble_shard(unit, list(islice(frames, unit.frames)), no_features, None, panorama) for unit in units]
    ledger = sum(map(shard_ledger, units, shards), Ledger.empty())
    check_skip_limit(ledger, max_skipped)
    tables = join_tables(tuple(names), shards)
    rows = zip(tables.frame_scene, tables.frame_name, strict=True)
    paths = [image_path(data_path, tables.scenes[scene], str(name)) for scene, name in rows]
    return Dataset(tables, paths, join_rows("frame_sha256", [shard.frame_sha256 for shard in shards]), ledger)


def _check_images(
    data_path: Path, units: list[PlannedUnit], panorama: str, known: FileCache
) -> Iterator[PreparedFrame]:
    """Yields the frames of all units in order, without crops; logs how many images are decoded."""
    folders = {unit.scene: (data_path / IMAGES / unit.scene).resolve() for unit in units}
    items = [(unit, frame) for unit in units for frame in range(unit.frames)]
    unchanged = sum(bool(known.get(folders[unit.scene] / str(unit.tables.frame_name[frame]))) for unit, frame in items)
    _log.info(
        "Images: %s of %s are decoded once, to find damaged ones; %s are unchanged since an earlier run.",
        *(f"{count:,}" for count in (len(items) - unchanged, len(items), unchanged)),
    )

    def check(item: tuple[PlannedUnit, int]) -> PreparedFrame:
        unit, frame = item
        return check_frame(data_path, folders[unit.scene], unit, frame, panorama, known)

    threads = torch.get_num_threads()
    with (
        single_threaded_pool(threads) as pool,  # decoding releases the GIL
        tqdm(total=len(items), unit="image", desc="check", disable=None) as bar,
    ):
        for prepared in read_ahead(check, items, pool, 2 * threads + 2):
            if prepared.reason:
                _log.warning("skipped a frame: %s (%s)", prepared.message, prepared.reason)
            bar.update()
            yield prepared
