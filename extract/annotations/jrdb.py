"""Reads the annotations of a JRDB-format folder into flat tables. (Format: README, "Your data".)

DATA/images/image_stitched/<scene>/<frame>.jpg
DATA/labels/labels_2d_activity_social_stitched/<scene>.json
"""

import gc
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from configs.errors import DataError
from configs.printable import printable
from configs.read_file import ANNOTATION_BYTES, read_file
from extract.annotations.folder import explain_missing_annotations
from extract.annotations.objects import FrameObjects, load_labels, read_objects
from extract.annotations.spatial import SPATIAL_DIM
from extract.images.identity import ImageIdentities
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
    """The annotations of one scene; `tables.spatial` and `tables.frame_size` are 0, as no image has been read."""

    name: str
    tables: Tables  # of this scene only
    image_bytes: NDArray[np.int64]  # (F,) size of each frame's image file; -1: no such file, -2: not a regular file
    image_ids: NDArray[np.str_] | None  # (F,) see `extract.images.identity`; None if they are not needed
    skipped: tuple[Skipped, ...]  # unusable annotations
    other_objects: int  # annotated objects other than pedestrians
    first_other: str  # the label_id of the first of them and its frame; "" if there is none
    unannotated: list[str]  # images without annotations


def scene_names(data_path: Path) -> list[str]:
    """Returns the names of the annotated scenes, in alphabetical order.

    Raises:
        DataError: the folder of annotations is missing or empty, or contains a name that is not UTF-8.
    """
    folder = data_path / LABELS
    names = [path.stem for path in annotation_files(folder)]
    for name in names:
        if not _is_utf8(name):
            raise DataError(f"{folder} contains {name!a}, a name that is not UTF-8; rename it")
    if not names:
        raise DataError(explain_missing_annotations(data_path, LABELS))
    return names


def annotation_files(folder: Path) -> list[Path]:
    """Returns the files <scene>.json in `folder`, in alphabetical order; other JSON files are named in a warning."""
    files = [path for path in folder.iterdir() if path.suffix.lower() == ".json"] if folder.is_dir() else []
    scenes = [path for path in files if path.suffix == ".json" and not path.name.startswith(".")]
    ignored = sorted(path.name for path in set(files) - set(scenes))
    if ignored:
        _warn_of_ignored(folder, tuple(ignored))
    return sorted(scenes, key=lambda path: path.stem)


@cache  # a command lists the scenes several times
def _warn_of_ignored(folder: Path, names: tuple[str, ...]) -> None:
    _log.warning(
        "Ignored in %s, because a scene's annotations are in <scene>.json, without a dot in front: %s",
        folder,
        ", ".join(map(printable, names)),
    )


def scene_digests(data_path: Path, identities: ImageIdentities | None = None) -> dict[str, SceneDigest]:
    """Returns digests of each scene's annotations and of its annotated images, without parsing or decoding anything.

    Args:
        identities: of the images, if some are known already; otherwise every image is read.

    Raises:
        DataError: annotations cannot be read.
    """
    identities = identities or ImageIdentities()
    digests = {}
    for name in tqdm(scene_names(data_path), desc="identify", unit="scene", disable=None, leave=False):
        labels = read_annotations(data_path / LABELS / f"{name}.json")
        images = sorted(_mentioned(_image_sizes(data_path, name), labels))
        ids = identities.of_folder(data_path / IMAGES / name, images, data_path / IMAGES)
        pairs = [list(pair) for pair in zip(images, ids, strict=True)]
        digests[name] = SceneDigest(labels=hashlib.sha256(labels).hexdigest(), images=digest(pairs))
    return digests


_END_OF_IMAGE_NAME = re.compile(rb'\.(?:jpe?g|png)"', re.IGNORECASE)


def _mentioned(names: Iterable[str], labels: bytes) -> list[str]:
    """Returns the image files that an annotation file mentions; all files if its text has escape sequences."""
    if b"\\" in labels:
        return list(names)
    ends = (match.span() for match in _END_OF_IMAGE_NAME.finditer(labels))
    mentioned = {labels[labels.rfind(b'"', 0, dot) + 1 : end - 1] for dot, end in ends}
    return [name for name in names if os.fsencode(name) in mentioned]


def read_scene(data_path: Path, name: str, identities: ImageIdentities | None = None) -> Scene:
    """Reads the annotations of scene `name`, and with `identities` those of its annotated images.

    Raises:
        DataError: the file cannot be read as annotations.
    """
    path = data_path / LABELS / f"{name}.json"
    labels = load_labels(read_annotations(path), path)
    frames = [read_objects(name, frame_name(key), labels[key]) for key in sorted(labels)]
    sizes = _image_sizes(data_path, name)
    image_ids = None
    if identities is not None:
        present = [frame.frame for frame in frames if frame.frame in sizes]
        ids = identities.of_folder(data_path / IMAGES / name, present, data_path / IMAGES)
        by_name = dict(zip(present, ids, strict=True))
        image_ids = np.array([by_name.get(frame.frame, "image_missing") for frame in frames], np.str_)
    return Scene(
        name=name,
        tables=_build_tables(name, frames),
        image_bytes=np.array([sizes.get(frame.frame, -1) for frame in frames], np.int64),
        image_ids=image_ids,
        skipped=tuple(chain.from_iterable(frame.skipped for frame in frames)),
        other_objects=sum(frame.other_objects for frame in frames),
        first_other=next(
            (f"{frame.first_other!r} in frame {frame.frame}" for frame in frames if frame.first_other), ""
        ),
        unannotated=sorted(set(sizes) - set(labels)),
    )


def read_scenes(data_path: Path, names: tuple[str, ...] = (), identities: ImageIdentities | None = None) -> list[Scene]:
    """Reads the named scenes (default: all) as `read_scene`, and logs what is ignored.

    Raises:
        DataError: a scene does not exist, or its file cannot be read as annotations.
    """
    known = scene_names(data_path)
    missing = sorted(set(names) - set(known))
    if missing:
        near = get_close_matches(missing[0], known, n=1)
        suggestion = f"; did you mean {near[0]!r}?" if near else ""
        raise DataError(f"{data_path} has no scene {missing[0]!r}{suggestion}; its scenes are {', '.join(known)}")
    with _no_garbage_collection():
        bar = tqdm(sorted(names or known), desc="plan", unit="scene", disable=None, leave=False)
        scenes = [read_scene(data_path, name, identities) for name in bar]
    _log_ignored(data_path, scenes, known)
    return scenes


def _log_ignored(data_path: Path, scenes: list[Scene], known: list[str]) -> None:
    folder = data_path / IMAGES
    unknown = sorted(path.name for path in folder.iterdir() if path.name not in known) if folder.is_dir() else []
    if unknown:
        names = ", ".join(map(printable, unknown))
        _log.warning("%d scenes have images but no annotations and are ignored: %s", len(unknown), names)
    unannotated = [f"{scene.name}/{name}" for scene in scenes for name in scene.unannotated]
    if unannotated:
        counted = (len(unannotated), printable(unannotated[0]))
        _log.info("%d images of annotated scenes have no annotations and are ignored; the first is %s", *counted)
    for scene in scenes:
        if scene.other_objects and not len(scene.tables.box):
            values = (scene.name, scene.other_objects, scene.first_other)
            _log.warning("Scene %s has no pedestrian:<number>; its %d other objects are ignored: %s, ...", *values)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Annotations have no reference cycles, but searching millions of their objects for cycles doubles the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def frame_name(key: str) -> str:
    """Returns the frame name for a key of an annotation file: the key itself if it can be a file name.

    Otherwise returns a printable substitute that contains a slash, so it never equals another frame's name and never
    refers to a file.
    """
    if key not in {"", ".", ".."} and not {"/", "\0"} & set(key) and _is_utf8(key) and len(key.encode()) <= 255:
        return key
    return f"{ascii(key)[1:61]}/{digest(key)[:16]}"


def image_path(data_path: Path, scene: str, frame: str) -> Path:
    """Returns the path of a frame's image. Raises FrameError (bad_frame_name) if the name cannot be a file name."""
    if "/" in frame:
        raise FrameError("bad_frame_name", f"scene {scene} has a frame {frame}, which cannot be the name of an image")
    return data_path / IMAGES / scene / frame


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def read_annotations(path: Path) -> bytes:
    """Returns the bytes of an annotation file. Raises DataError."""
    try:
        return read_file(path, max_bytes=ANNOTATION_BYTES)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check --data_path") from error


def _image_sizes(data_path: Path, scene: str) -> dict[str, int]:
    """Returns image file name -> size in bytes, -2 if it is not a regular file; images are recognised by suffix."""
    folder = data_path / IMAGES / scene
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        images = [entry for entry in entries if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES]
        return {entry.name: entry.stat(follow_symlinks=True).st_size if entry.is_file() else -2 for entry in images}


def _build_tables(scene: str, frames: list[FrameObjects]) -> Tables:
    counts = [len(frame.ids) for frame in frames]
    offset = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    # (frame, row in frame, row in frame, labels)
    pairs = [(i, *rows, frame.pairs[rows]) for i, frame in enumerate(frames) for rows in sorted(frame.pairs)]
    label_sets = sorted({labels for *_, labels in pairs})
    label_index = {labels: index for index, labels in enumerate(label_sets)}
    pair_frame = np.array([pair[0] for pair in pairs], np.int32)
    rows = np.array([pair[1:3] for pair in pairs], np.int64).reshape(-1, 2)
    return Tables(
        scenes=(scene,),
        frame_scene=np.zeros(len(frames), np.int32),
        frame_name=np.array([frame.frame for frame in frames], np.str_),
        frame_index=np.arange(len(frames), dtype=np.int32),
        frame_size=np.zeros((len(frames), 2), np.int32),
        frame_offset=offset,
        box=np.array(list(chain.from_iterable(f.boxes for f in frames)), np.float64).reshape(-1, 4),
        person_id=np.array(list(chain.from_iterable(f.ids for f in frames)), np.int64),
        pair=rows + offset[pair_frame][:, None],
        pair_frame=pair_frame,
        spatial=np.zeros((len(pairs), SPATIAL_DIM), np.float32),
        label=np.array([label_index[labels] for *_, labels in pairs], np.int32),
        label_sets=tuple(label_sets),
    )
