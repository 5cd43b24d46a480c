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
from extract.images.file_cache import FileCache, file_status
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


@dataclass(frozen=True)
class _Decoded:
    """A decoded image."""

    pixels: Tensor  # (3, H, W) uint8
    sha256: str
    seconds: tuple[float, float]  # read, decode


def _decode(data_path: Path, unit: PlannedUnit, frame: int) -> _Decoded:
    """Reads and decodes the image of frame row `frame`. Raises FrameError."""
    start = perf_counter()
    path = image_path(data_path, unit.scene, str(unit.tables.frame_name[frame]))
    data = read_image_bytes(path, data_path / IMAGES)
    checksum = sha256(data)
    if not unit.is_planned_image(frame, len(data), checksum):
        raise FrameError("image_changed", f"{path} has changed since the job was planned")
    read = perf_counter()
    pixels = decode_frame(data, path)
    return _Decoded(pixels, checksum, (read - start, perf_counter() - read))


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
        decoded = _decode(data_path, unit, frame)
    except FrameError as error:
        return unusable_frame(error.reason, str(error), len(boxes))
    start = perf_counter()
    height, width = decoded.pixels.shape[1:]
    outside = boxes_outside(boxes, width, height, panorama)
    crops = crop_people(decoded.pixels, boxes[wanted & ~outside], crop_size, panorama)
    seconds = (*decoded.seconds, perf_counter() - start)
    return PreparedFrame("", "", (width, height), decoded.sha256, outside, crops, seconds)


def check_frame(
    data_path: Path, folder: Path, unit: PlannedUnit, frame: int, panorama: str, known: FileCache
) -> PreparedFrame:
    """As `prepare_frame`, but cuts no crops: decodes the image only to see whether it can be used.

    Args:
        folder: the absolute folder of the scene's images.
        known: sha256, width and height of images that were decoded before. Unchanged ones are not read; an image that
            is decoded is added.
    """
    boxes, path = unit.boxes_in(frame), folder / str(unit.tables.frame_name[frame])
    before, value = file_status(path), known.get(path)
    if value:
        checksum, width, height = str(value[0]), int(value[1]), int(value[2])
    else:
        try:
            decoded = _decode(data_path, unit, frame)
        except FrameError as error:
            return unusable_frame(error.reason, str(error), len(boxes))
        checksum, (height, width) = decoded.sha256, decoded.pixels.shape[1:]
        known.put(path, before, (checksum, width, height))
    return frame_without_crops(boxes_outside(boxes, width, height, panorama), size=(width, height), sha256=checksum)
