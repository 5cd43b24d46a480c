"""Draws predictions into frames and writes one picture per frame, DRAW/<scene>/<frame>, under the frame's own name.

Each picture is encoded in memory and published as a whole.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.io import encode_jpeg, encode_png

from classify.inference.predictions import Predictions
from classify.report.overlay import draw_frame
from configs.errors import ConfigError
from extract.annotations.jrdb import IMAGES, image_path
from extract.images.read import read_frame
from extract.units.plan import PlannedUnit
from store.files import exclusive_folder_lock, make_folder, publish, remove_temporary_files, translate_os_errors
from store.outputs import claim_file, claim_folder

_QUALITY = 90  # of JPEG
_COMPRESSION = 1  # of PNG, 0 to 9; 6, the usual value, takes 6 times as long for files that are 10 % smaller


@contextmanager
def open_pictures(
    folder: Path, units: Iterable[PlannedUnit], out: Path, *, overwrite: bool, inputs: Iterable[Path]
) -> Iterator[None]:
    """Checks that the pictures of `units` may be written into `folder`, and locks it while the block runs.

    Removes what killed jobs have left of writing these pictures.

    Args:
        out: the file of predictions, which has to be another one.
        overwrite: whether the folder may contain files, and pictures of the same names are replaced.
        inputs: see `claim_folder`.

    Raises:
        ConfigError: the folder, a scene's folder or a picture may not be written, or is in the place of `out`.
        LockedError: another job is drawing into the folder.
        StorageError: the folder cannot be created.
    """
    inputs = tuple(inputs)
    claim_folder(folder, overwrite=overwrite, inputs=inputs)
    target = out.resolve()
    pictures_of = _pictures_by_scene(folder, units)
    for scene, pictures in pictures_of.items():
        claim_folder(scene, inputs=inputs)  # it may be a link into the data
        if scene.resolve().is_relative_to(target):
            raise ConfigError(f"--out {out} is in the place of a folder of pictures, {scene}; name another file")
        for picture in pictures:
            if picture.resolve() == target:
                raise ConfigError(f"--out {out} is the name of a picture in --draw; name another file")
            claim_file(picture, overwrite=True)
    make_folder(folder)
    with exclusive_folder_lock(folder):
        with translate_os_errors(folder):
            for scene, pictures in pictures_of.items():
                if scene.is_dir():
                    remove_temporary_files(*pictures)
        yield


def _pictures_by_scene(folder: Path, units: Iterable[PlannedUnit]) -> dict[Path, list[Path]]:
    """The folder of each scene, and the paths of its pictures. (A frame with a slash in its name has no image.)"""
    pictures: dict[Path, list[Path]] = {}
    for unit in units:
        names = [name for name in unit.tables.frame_name.tolist() if "/" not in name]
        pictures.setdefault(folder / unit.scene, []).extend(folder / unit.scene / name for name in names)
    return pictures


def write_pictures(predictions: Predictions, data_path: Path, folder: Path) -> None:
    """Writes a picture of every frame of `predictions`; existing pictures are replaced.

    Raises:
        StorageError: a picture cannot be written; there is no part of it.
        FrameError: a frame's image cannot be read any more.
    """
    shard, pair = predictions.shard, predictions.pair
    target = folder / shard.scene
    make_folder(target)
    frame_of_pair = np.searchsorted(shard.frame_offset, pair[:, 0], side="right") - 1
    for frame, name in enumerate(shard.frame_name.tolist()):
        pixels = read_frame(image_path(data_path, shard.scene, name), data_path / IMAGES)
        first = int(shard.frame_offset[frame])
        boxes = shard.box[first : shard.frame_offset[frame + 1]]
        rows = np.flatnonzero(frame_of_pair == frame)
        probability = predictions.probability[torch.from_numpy(rows)]
        drawn = draw_frame(
            pixels, boxes, pair[rows] - first, probability, predictions.class_names, predictions.panorama
        )
        publish(target / name, encode(drawn, name))


def encode(pixels: Tensor, name: str) -> bytes:
    """The file `name` of a picture (3, H, W) uint8: PNG if the name ends with .png, else JPEG."""
    is_png = Path(name).suffix.lower() == ".png"
    data = encode_png(pixels, _COMPRESSION) if is_png else encode_jpeg(pixels, _QUALITY)
    return bytes(data.numpy())
