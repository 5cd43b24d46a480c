"""Turns one planned frame into its persons' crops: reads, decodes and crops the image once.

An image is not read at all if the features of all of its persons are stored already.
"""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extract.annotations.jrdb import IMAGES, image_path
from extract.images.crops import boxes_outside, crop_people
from extract.images.read import FrameError, decode_frame, read_image_bytes
from extract.units.plan import PlannedUnit
from store.files import sha256
from store.rows import KnownRows
from store.tables import Mask


@dataclass(frozen=True)
class PreparedFrame:
    """The crops of one frame. If `reason` is set, the image cannot be used and has no crops."""

    reason: str  # why the image cannot be used, e.g. "image_missing"; "" if it can
    message: str  # the same in a sentence, for the log
    size: tuple[int, int]  # width, height in pixels
    sha256: str  # of the image file
    outside: NDArray[np.bool_]  # (P,) True for persons without a crop: their box is outside the image
    crops: Tensor  # (persons inside whose features are not known, 3, S, S) uint8, channels last
    seconds: tuple[float, float, float]  # read, decode, crop; 0 if the image was not decoded


def frame_without_crops(
    outside: NDArray[np.bool_], *, reason: str = "", message: str = "", size: tuple[int, int] = (0, 0), sha256: str = ""
) -> PreparedFrame:
    """Returns a frame whose image was not decoded; see `PreparedFrame` for the values."""
    return PreparedFrame(reason, message, size, sha256, outside, torch.empty(0), (0.0, 0.0, 0.0))


def unusable_frame(reason: str, message: str, persons: int) -> PreparedFrame:
    """Returns a frame whose image cannot be used, so that all of its persons are left out."""
    return frame_without_crops(np.ones(persons, bool), reason=reason, message=message)


def prepare_frame(
    data_path: Path,
    unit: PlannedUnit,
    frame: int,
    crop_size: int,
    panorama: str,
    known: KnownRows | None = None,
) -> PreparedFrame:
    """Reads, decodes and crops the image of frame row `frame`; an unusable image is reported in `reason`.

    Args:
        known: the stored features of the unit's persons; those that are known in all views get no crops.
    """
    boxes = unit.boxes_in(frame)
    wanted: Mask = np.ones(len(boxes), bool)
    if known is not None and known.frame_size[frame].any():
        width, height = known.frame_size[frame].tolist()
        outside = boxes_outside(boxes, width, height, panorama)
        wanted = np.logical_not(known.known[:, unit.rows_of(frame)].all(axis=0))
        if not (wanted & ~outside).any():
            assert unit.image_ids is not None
            return frame_without_crops(outside, size=(width, height), sha256=str(unit.image_ids[frame]))
    try:
        start = perf_counter()
        path = image_path(data_path, unit.scene, str(unit.tables.frame_name[frame]))
        data = read_image_bytes(path, data_path / IMAGES)
        checksum = sha256(data)
        if not unit.is_planned_image(frame, len(data), checksum):
            raise FrameError("image_changed", f"{path} has changed since the job was planned")
        read = perf_counter()
        pixels = decode_frame(data, path)
        decoded = perf_counter()
    except FrameError as error:
        return unusable_frame(error.reason, str(error), len(boxes))
    height, width = pixels.shape[1:]
    outside = boxes_outside(boxes, width, height, panorama)
    crops = crop_people(pixels, boxes[wanted & ~outside], crop_size, panorama)
    seconds = (read - start, decoded - read, perf_counter() - decoded)
    return PreparedFrame("", "", (width, height), checksum, outside, crops, seconds)
