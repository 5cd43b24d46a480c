"""Reads a JRDB-format folder into flat tables (the format: README, "Your data").

DATA/images/image_stitched/<scene>/<frame>.jpg
DATA/labels/labels_2d_activity_social_stitched/<scene>.json
"""

import hashlib
import logging
import os
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from extract.annotations.objects import FrameObjects, load_labels, read_objects
from extract.images.read import FrameError
from store.format.manifest import SceneDigest
from store.format.recipe import digest
from store.format.shard import Skipped
from store.tables import Tables

IMAGES = Path("images/image_stitched")
LABELS = Path("labels/labels_2d_activity_social_stitched")
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}

_log = logging.getLogger("stage2")


@dataclass(frozen=True)
class Scene:
    """One scene's annotations, all frames; `tables.spatial` and `frame_size` are 0 until the images are read."""

    name: str
    tables: Tables  # of this scene alone
    image_bytes: NDArray[np.int64]  # (F,) size of each frame's image file, -1 where there is none
    skipped: tuple[Skipped, ...]
    others: int  # annotated objects that are no pedestrians
    unannotated: int  # images without annotations


def scene_names(data_path: Path) -> list[str]:
    """The annotated scenes of a JRDB-format folder, in alphabetical order.

    Raises:
        DataError: there is no folder of annotations, it is empty, or a name in it is no UTF-8.
    """
    folder = data_path / LABELS
    names = sorted(path.stem for path in folder.glob("[!.]*.json")) if folder.is_dir() else []
    for name in names:
        if not _is_text(name):
            raise DataError(f"{folder} holds {name!a}, a name that is not UTF-8; rename it")
    if not names:
        raise DataError(f"{folder} holds no annotations (<scene>.json); check --data_path")
    return names


def scene_digests(data_path: Path) -> dict[str, SceneDigest]:
    """What identifies each scene's data: cheap, nothing is parsed or decoded. Raises DataError."""
    return {
        name: SceneDigest(
            labels=hashlib.sha256(_read_bytes(data_path / LABELS / f"{name}.json")).hexdigest(),
            images=digest(sorted(_image_sizes(data_path, name).items())),
        )
        for name in scene_names(data_path)
    }


def read_scene(data_path: Path, name: str) -> Scene:
    """The annotations of scene `name`. Raises DataError where its file cannot be read as annotations."""
    path = data_path / LABELS / f"{name}.json"
    labels = load_labels(_read_bytes(path), path)
    frames = [read_objects(name, frame_name(frame), labels[frame]) for frame in sorted(labels)]
    sizes = _image_sizes(data_path, name)
    return Scene(
        name=name,
        tables=_tables(name, frames),
        image_bytes=np.array([sizes.get(frame.frame, -1) for frame in frames], np.int64),
        skipped=tuple(chain.from_iterable(frame.skipped for frame in frames)),
        others=sum(frame.others for frame in frames),
        unannotated=len(set(sizes) - set(labels)),
    )


def read_scenes(data_path: Path, names: tuple[str, ...] = ()) -> list[Scene]:
    """All annotated scenes or the named ones, and a word on images that have no annotations. Raises DataError."""
    known = set(scene_names(data_path))
    absent = sorted(set(names) - known)
    if absent:
        raise DataError(f"{data_path} has no scene {absent[0]}; its scenes are {', '.join(sorted(known))}")
    scenes = [read_scene(data_path, name) for name in sorted(names or known)]
    folder = data_path / IMAGES
    unknown = sorted(path.name for path in folder.iterdir() if path.name not in known) if folder.is_dir() else []
    unannotated = sum(scene.unannotated for scene in scenes)
    if unknown:
        _log.warning("%d scenes have images and no annotations, and are left out: %s", len(unknown), ", ".join(unknown))
    if unannotated:
        _log.info("%d images of annotated scenes have no annotations, and are left out", unannotated)
    return scenes


def frame_name(key: str) -> str:
    """The frame that an annotation file calls `key`: `key` where that can name a file, else a stand-in.

    The stand-in holds a slash, so that it is never another frame's name and never leads to a file.
    """
    if key not in {"", ".", ".."} and not {"/", "\0"} & set(key) and _is_text(key) and len(key.encode()) <= 255:
        return key
    return f"{ascii(key)[1:61]}/{digest(key)[:16]}"


def image_path(data_path: Path, scene: str, frame: str) -> Path:
    """Where a frame's image lies. Raises FrameError (bad_frame_name) where its name cannot be a file's."""
    if "/" in frame:
        raise FrameError("bad_frame_name", f"scene {scene} has a frame {frame}, which cannot name an image")
    return data_path / IMAGES / scene / frame


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _read_bytes(path: Path) -> bytes:
    if path.exists() and not path.is_file():  # a FIFO would block the job
        raise DataError(f"{path} is no regular file; check --data_path")
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check --data_path") from error


def _image_sizes(data_path: Path, scene: str) -> dict[str, int]:
    """Image file name -> bytes. Only entries of image suffixes count; what they really are is found on reading."""
    folder = data_path / IMAGES / scene
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        images = [entry for entry in entries if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES]
        return {entry.name: entry.stat(follow_symlinks=True).st_size if entry.is_file() else -2 for entry in images}


def _tables(scene: str, frames: list[FrameObjects]) -> Tables:
    counts = [len(frame.ids) for frame in frames]
    first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    # (frame, row in frame, row in frame, labels)
    pairs = [(i, *rows, frame.pairs[rows]) for i, frame in enumerate(frames) for rows in sorted(frame.pairs)]
    label_sets = sorted({labels for *_, labels in pairs})
    number = {labels: index for index, labels in enumerate(label_sets)}
    pair_frame = np.array([pair[0] for pair in pairs], np.int32)
    rows = np.array([pair[1:3] for pair in pairs], np.int64).reshape(-1, 2)
    return Tables(
        scenes=(scene,),
        frame_scene=np.zeros(len(frames), np.int32),
        frame_name=np.array([frame.frame for frame in frames], np.str_),
        frame_index=np.arange(len(frames), dtype=np.int32),
        frame_size=np.zeros((len(frames), 2), np.int32),
        frame_offset=first,
        box=np.array(list(chain.from_iterable(f.boxes for f in frames)), np.float64).reshape(-1, 4),
        person_id=np.array(list(chain.from_iterable(f.ids for f in frames)), np.int64),
        pair=rows + first[pair_frame][:, None],
        pair_frame=pair_frame,
        spatial=np.zeros((len(pairs), 8), np.float32),
        label=np.array([number[labels] for *_, labels in pairs], np.int32),
        label_sets=tuple(label_sets),
    )
