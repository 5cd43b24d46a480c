"""Identifies the data of an end-to-end run by its content, so that a run is never resumed on other data."""

import hashlib
from typing import Protocol

import numpy as np

from classify.data.crop_cache import PersonInputs
from classify.data.selection import Split
from store.tables import Ints, Tables


class CropInputs(PersonInputs, Protocol):
    """Crops whose images can be identified; implemented by `FrameCrops` and `StoredCrops`."""

    def image_sha256(self, frames: Ints) -> list[str]:
        """The sha256 of the image files of these frame rows."""


def data_digests(tables: Tables, splits: dict[str, Split], crops: CropInputs) -> dict[str, str]:
    """Scene -> sha256 of what the run uses of it: images, persons, boxes, pairs, classes and spatial features.

    Crops from images and crops from a store of the same images have the same digests.
    """
    digests = {}
    for name, split in splits.items():
        scene_of_pair = tables.frame_scene[tables.pair_frame[split.pairs]]
        for scene in np.unique(scene_of_pair).tolist():
            samples = scene_of_pair == scene
            rows, labels = split.pairs[samples], split.labels[samples]
            frames, frame_of_pair = np.unique(tables.pair_frame[rows], return_inverse=True)
            images = list(zip(tables.frame_name[frames].tolist(), crops.image_sha256(frames), strict=True))
            sha256 = hashlib.sha256(repr((name, images)).encode())
            persons = tables.pair[rows]
            for array, dtype in (
                (frame_of_pair.reshape(-1), "<i8"),
                (tables.frame_size[frames], "<i8"),
                (tables.person_id[persons], "<i8"),
                (tables.box[persons], "<f8"),
                (tables.spatial[rows], "<f4"),
                (labels, "<i8"),
            ):
                sha256.update(np.ascontiguousarray(array, dtype).tobytes())
            digests[tables.scenes[scene]] = sha256.hexdigest()
    return digests
