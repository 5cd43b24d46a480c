"""A seeded sample of a job's own crops, over all of its scenes: a part calibrates int8, the rest measures its error."""

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from configs.errors import DataError
from configs.extraction_config import ExtractionConfig
from extract.units.plan import PlannedUnit
from extract.units.prepare import prepare_frame
from extract.units.workers import single_threaded_pool

SEED = 0
FRAMES = 96  # at least one of each scene
CROPS = 288  # at least 3 people of each frame
_HELD_OUT = 3  # every third crop is held out

Frame = tuple[PlannedUnit, int]  # unit, row of the frame


def sample_crops(units: Sequence[PlannedUnit], config: ExtractionConfig) -> tuple[Tensor, Tensor]:
    """Crops of people to calibrate on and others to measure on, (P, 3, S, S) uint8 each, about 2 to 1.

    The parts have different frames, except for one that is divided between them. The sample depends on the planned
    frames and people alone, and on which images are usable.

    Raises:
        DataError: there are not two people with a usable image.
    """
    generator = np.random.default_rng(SEED)
    frames = _choose_frames(units, generator)
    count = max(3, math.ceil(CROPS / max(1, len(frames))))
    orders = [generator.permutation(len(unit.boxes_in(frame))) for unit, frame in frames]

    def crop(index: int) -> Tensor:
        unit, frame = frames[index]
        prepared = prepare_frame(Path(config.data_path), unit, frame, config.crop_size, config.panorama)
        inside = [int(row) for row in orders[index] if not prepared.outside[row]][:count]
        rows = np.cumsum(~prepared.outside)[inside] - 1  # of the crops
        return prepared.crops[torch.from_numpy(rows)] if inside else torch.empty(0)

    threads = torch.get_num_threads()
    with single_threaded_pool(threads) as pool:
        parts = [part for part in pool.map(crop, range(len(frames))) if len(part)]
    torch.set_num_threads(threads)  # a worker's setting would be the default of threads that start later
    crops = torch.cat(parts) if parts else torch.empty(0)
    if len(crops) < 2:
        raise DataError(
            f"--precision int8 is calibrated on people with usable images and measured on others, but {len(crops)} of "
            f"the planned people has one; use --precision float32"
        )
    held_out = max(1, len(crops) // _HELD_OUT)
    return crops[:-held_out], crops[-held_out:]


def _choose_frames(units: Sequence[PlannedUnit], generator: np.random.Generator) -> list[Frame]:
    """About FRAMES frames with people, the same number of each scene that has enough, in random order."""
    scenes = [
        [(unit, frame) for unit in group for frame in range(unit.frames) if len(unit.boxes_in(frame))]
        for _, group in groupby(units, key=lambda unit: unit.scene)
    ]
    scenes = [frames for frames in scenes if frames]
    share = math.ceil(FRAMES / max(1, len(scenes)))
    chosen = [frames[row] for frames in scenes for row in generator.permutation(len(frames))[:share]]
    return [chosen[row] for row in generator.permutation(len(chosen))]
