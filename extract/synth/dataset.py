"""Draws datasets in JRDB format: invented scenes, or panoramas that match given annotations."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torchvision.io import encode_jpeg
from tqdm import tqdm

from configs.errors import ConfigError, DataError
from configs.splits import JRDB_SPLIT
from extract.annotations.jrdb import IMAGES, LABELS, annotation_files, read_annotations
from extract.annotations.objects import load_labels
from extract.synth.annotate import Objects, annotate, annotated_persons, visible_groups
from extract.synth.background import HEIGHT, WIDTH, Background, draw_background
from extract.synth.crowd import draw_crowd, persons_in
from extract.synth.people import Person, draw_person
from extract.synth.raster import blend
from store.files import make_folder, publish

INTERVAL = 15  # between the numbers of frames: JRDB annotates one frame per second
_QUALITY = 92
_THREADS = 2


def draw_dataset(out: Path, *, scenes: int = 25, frames: int = 10, people: int = 18, seed: int = 0) -> Path:
    """Draws `scenes` scenes of `frames` frames with about `people` people in each; returns `out`.

    The scenes have names of the built-in split, so that train, val and test each have some. The same seed gives the
    same bytes.

    Raises:
        ConfigError: `scenes` is below 3 or above the number in the split, or `frames` or `people` is below 1.
        DataError: `out` is not empty.
    """
    if frames < 1 or people < 1:
        raise ConfigError("--frames and --people must be at least 1")
    with _atomic_folder(out) as folder:
        for name in tqdm(_scene_names(scenes), desc="draw", unit="scene", disable=None):
            rng = np.random.default_rng((seed, crc32(name.encode())))
            background, groups = draw_background(name, rng), draw_crowd(rng, frames, people)
            names = [f"{INTERVAL * frame:06d}.jpg" for frame in range(frames)]
            labels = {file: annotate(groups, frame, file, rng) for frame, file in enumerate(names)}
            persons = [
                [p for _, group in visible_groups(groups, i) for p in persons_in(group, i)] for i in range(frames)
            ]
            _draw_scene(folder, name, background, dict(zip(names, persons, strict=True)), seed)
            _write_labels(folder, name, json.dumps({"labels": labels}, indent=1).encode())
    return out


def draw_for_labels(labels: Path, out: Path, *, scenes: int | None, frames: int | None, seed: int = 0) -> Path:
    """Draws panoramas that match the annotations in `labels`: boxes, and postures according to the labels.

    Args:
        labels: the folder with the scenes' JSON files, or a dataset that contains it.
        scenes, frames: use only the first scenes, and the first frames of each; None: all. The annotation file of a
            complete scene is copied unchanged.

    Raises:
        DataError: there are no annotations, they cannot be read, or `out` is not empty.
    """
    files = _label_files(labels)[:scenes]
    with _atomic_folder(out) as folder:
        for path in tqdm(files, desc="draw", unit="scene", disable=None):
            data = read_annotations(path)
            content = load_labels(data, path)
            names = sorted(content)[:frames]
            scene_seed = crc32(path.stem.encode()) + seed
            background = draw_background(path.stem, np.random.default_rng((seed, scene_seed)))
            persons = {name: annotated_persons(_objects_in(content[name]), scene_seed) for name in names}
            _draw_scene(folder, path.stem, background, persons, seed)
            if len(names) < len(content):
                data = json.dumps({"labels": {name: content[name] for name in names}}).encode()
            _write_labels(folder, path.stem, data)
    return out


def _scene_names(scenes: int) -> list[str]:
    """Returns scenes of the built-in split: about a fifth, at least one, of val and of test, and the rest of train."""
    val = min(max(1, round(scenes / 5)), len(JRDB_SPLIT.val))
    test = min(max(1, round(scenes / 5)), len(JRDB_SPLIT.test))
    limit = len(JRDB_SPLIT.train) + val + test
    if not 3 <= scenes <= limit:
        raise ConfigError(f"--scenes is {scenes}; it must be between 3 and {limit}")
    return [*JRDB_SPLIT.train[: scenes - val - test], *JRDB_SPLIT.val[:val], *JRDB_SPLIT.test[:test]]


def _label_files(labels: Path) -> list[Path]:
    for folder in (labels / LABELS, labels / LABELS.name, labels):
        files = annotation_files(folder)
        if files:
            return files
    raise DataError(f"{labels} contains no annotations (<scene>.json); check --labels")


def _objects_in(value: Any) -> Objects:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


@contextmanager
def _atomic_folder(out: Path) -> Iterator[Path]:
    """Yields a temporary folder next to `out` that is renamed to `out` once it is complete."""
    out = Path(os.path.abspath(out))  # noqa: PTH100 - "." has no name; links are kept
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is not empty; remove it, or choose another folder")
    make_folder(out.parent)
    # a random name: what a killed run leaves does not block the next one
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name[:100]}.", suffix=".partial", dir=out.parent))
    folder = partial / "data"  # with the usual permissions, unlike `partial`
    try:
        make_folder(folder)
        yield folder
        if out.exists() and out.samefile("."):  # replacing the current folder would remove it under the shell
            for entry in sorted(folder.iterdir()):
                entry.rename(out / entry.name)
        else:
            os.replace(folder, out)  # noqa: PTH105 - also replaces an empty folder
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _draw_scene(folder: Path, scene: str, background: Background, frames: dict[str, list[Person]], seed: int) -> None:
    target = folder / IMAGES / scene
    make_folder(target)

    def draw(name: str) -> None:
        rng = np.random.default_rng((seed, crc32(f"{scene}/{name}".encode())))
        publish(target / name, _draw_frame(background, frames[name], rng))

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(draw, frames))


def _draw_frame(background: Background, persons: list[Person], rng: np.random.Generator) -> bytes:
    """Draws one panorama as JPEG: the background, objects and people from far to near, random brightness and noise."""
    panorama = background.panorama.copy()
    # a lower foot is nearer to the camera; objects have negative indices
    people = [(person.box[1] + person.box[3], index) for index, person in enumerate(persons)]
    objects = [(foot, -1 - index) for index, (*_, foot) in enumerate(background.objects)]
    for _, index in sorted(people + objects):
        if index < 0:
            patch, left, top, _ = background.objects[-1 - index]
        else:
            patch, left, top = draw_person(persons[index])
        blend(panorama, patch, left % WIDTH, top)
    panorama *= rng.uniform(0.88, 1.1)
    panorama += np.roll(background.noise, int(rng.integers(WIDTH)), axis=2)
    pixels = torch.from_numpy(np.clip(panorama, 0, 255).astype(np.uint8))
    assert pixels.shape == (3, HEIGHT, WIDTH)
    return bytes(encode_jpeg(pixels, quality=_QUALITY).numpy())


def _write_labels(folder: Path, scene: str, data: bytes) -> None:
    target = folder / LABELS
    make_folder(target)
    publish(target / f"{scene}.json", data)
