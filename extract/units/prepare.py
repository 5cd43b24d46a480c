"""One planned frame -> its people's crops: read, decoded and cropped once, or a named reason why not."""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extract.annotations.jrdb import IMAGES, image_path
from extract.images.crops import crop_people, outside
from extract.images.read import FrameError, decode_frame, read_image_bytes
from extract.units.plan import PlannedUnit
from store.files import sha256


@dataclass(frozen=True)
class PreparedFrame:
    """What became of one frame. Where `reason` is set nothing else counts."""

    reason: str  # "" where the image could be used
    message: str
    size: tuple[int, int]  # width, height in pixels
    sha256: str  # of the image file
    unseen: NDArray[np.bool_]  # (P,) which of its people lie outside the image
    crops: Tensor  # (people seen, 3, S, S) uint8, channels last
    seconds: tuple[float, float, float]  # read, decode, crop


def unused_frame(reason: str, message: str, people: int) -> PreparedFrame:
    """A frame whose image cannot be used, with none of its people."""
    return PreparedFrame(reason, message, (0, 0), "", np.ones(people, bool), torch.empty(0), (0.0, 0.0, 0.0))


def prepare_frame(data_path: Path, unit: PlannedUnit, frame: int, crop_size: int) -> PreparedFrame:
    """Reads, decodes and crops frame `frame` of a unit; a frame that cannot be used comes back with the reason."""
    tables = unit.tables
    boxes = tables.box[tables.frame_offset[frame] : tables.frame_offset[frame + 1]]
    try:
        began = perf_counter()
        path = image_path(data_path, unit.scene, str(tables.frame_name[frame]))
        data = read_image_bytes(path, data_path / IMAGES)
        if len(data) != unit.image_bytes[frame]:
            raise FrameError("image_changed", f"{path} has changed since the job was planned")
        read = perf_counter()
        pixels = decode_frame(data, path)
        decoded = perf_counter()
    except FrameError as error:
        return unused_frame(error.reason, str(error), len(boxes))
    height, width = pixels.shape[1:]
    unseen = outside(boxes, width, height)
    crops = crop_people(pixels, boxes[~unseen], crop_size)
    seconds = (read - began, decoded - read, perf_counter() - decoded)
    return PreparedFrame("", "", (width, height), sha256(data), unseen, crops, seconds)
