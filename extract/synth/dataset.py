"""Draws whole JRDB-format data sets: invented ones, or panoramas that fit given annotations."""

import json
import os
import shutil
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
from extract.annotations.jrdb import IMAGES, LABELS
from extract.annotations.objects import load_labels
from extract.synth.annotate import Objects, annotate, figures_of, present
from extract.synth.background import HEIGHT, WIDTH, Place, draw_place
from extract.synth.crowd import draw_crowd, figures_in
from extract.synth.people import Figure, draw_person
from extract.synth.raster import lay

INTERVAL = 15  # JRDB's key frames are a second apart
_QUALITY = 92
_THREADS = 2


def draw_dataset(out: Path, *, scenes: int = 25, frames: int = 10, people: int = 18, seed: int = 0) -> Path:
    """Draws `scenes` scenes of `frames` frames with about `people` people each; returns `out`.

    The scenes have names of the shipped split, shared out over train, val and test. The same seed gives the same
    bytes.

    Raises:
        ConfigError: there are fewer than 3 scenes or more than the split has, or no frames or people.
        DataError: `out` is not empty.
    """
    if frames < 1 or people < 1:
        raise ConfigError("a data set needs at least one frame and one person; raise --frames or --people")
    with _finished_folder(out) as folder:
        for name in tqdm(_share_out(scenes), desc="draw", unit="scene", disable=None):
            rng = np.random.default_rng((seed, crc32(name.encode())))
            place, groups = draw_place(name, rng), draw_crowd(rng, frames, people)
            names = [f"{INTERVAL * frame:06d}.jpg" for frame in range(frames)]
            labels = {file: annotate(groups, frame, file, rng) for frame, file in enumerate(names)}
            figures = [[f for _, group in present(groups, i) for f in figures_in(group, i)] for i in range(frames)]
            _draw_scene(folder, name, place, dict(zip(names, figures, strict=True)), seed)
            _write_labels(folder, name, json.dumps({"labels": labels}, indent=1).encode())
    return out


def draw_for_labels(labels: Path, out: Path, *, scenes: int | None, frames: int | None, seed: int = 0) -> Path:
    """Draws panoramas that fit the annotations under `labels`: positions, sizes, and postures by label.

    Args:
        labels: the folder with the scenes' JSON files, or a folder above it.
        scenes, frames: how many scenes, and frames of each, from the first; None: all. Annotations of whole scenes
            are copied byte for byte.

    Raises:
        DataError: there are no annotations, they cannot be read, or `out` is not empty.
    """
    files = _label_files(labels)[:scenes]
    with _finished_folder(out) as folder:
        for path in tqdm(files, desc="draw", unit="scene", disable=None):
            data = path.read_bytes()
            content = load_labels(data, path)
            names = sorted(content)[:frames]
            scene_seed = crc32(path.stem.encode()) + seed
            place = draw_place(path.stem, np.random.default_rng((seed, scene_seed)))
            figures = {name: figures_of(_objects(content[name]), scene_seed) for name in names}
            _draw_scene(folder, path.stem, place, figures, seed)
            whole = len(names) == len(content)
            kept = {"labels": {name: content[name] for name in names}}
            _write_labels(folder, path.stem, data if whole else json.dumps(kept).encode())
    return out


def _share_out(scenes: int) -> list[str]:
    """Names of the shipped split: about a fifth each for val and test, at least one, the rest for train."""
    val = min(max(1, round(scenes / 5)), len(JRDB_SPLIT.val))
    test = min(max(1, round(scenes / 5)), len(JRDB_SPLIT.test))
    most = len(JRDB_SPLIT.train) + val + test
    if not 3 <= scenes <= most:
        raise ConfigError(f"--scenes is {scenes}; it must lie between 3 and {most}")
    return [*JRDB_SPLIT.train[: scenes - val - test], *JRDB_SPLIT.val[:val], *JRDB_SPLIT.test[:test]]


def _label_files(labels: Path) -> list[Path]:
    for folder in (labels / LABELS, labels / LABELS.name, labels):
        files = sorted(folder.glob("*.json")) if folder.is_dir() else []
        if files:
            return files
    raise DataError(f"{labels} holds no annotations (<scene>.json); check --labels")


def _objects(value: Any) -> Objects:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


@contextmanager
def _finished_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name when everything in it is drawn."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is not empty; remove it, or choose another folder")
    partial = out.with_name(f"{out.name}.partial")
    if partial.exists():
        raise DataError(f"{partial} is left from a drawing that was killed; remove it")
    partial.mkdir(parents=True)
    try:
        yield partial
        os.replace(partial, out)  # noqa: PTH105 - replaces an empty folder too
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # half a data set is none


def _draw_scene(folder: Path, scene: str, place: Place, frames: dict[str, list[Figure]], seed: int) -> None:
    target = folder / IMAGES / scene
    target.mkdir(parents=True, exist_ok=True)

    def draw(name: str) -> None:
        rng = np.random.default_rng((seed, crc32(f"{scene}/{name}".encode())))
        (target / name).write_bytes(_draw_frame(place, frames[name], rng))

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(draw, frames))


def _draw_frame(place: Place, figures: list[Figure], rng: np.random.Generator) -> bytes:
    """One panorama as JPEG: the place, its objects and people from far to near, light and grain."""
    panorama = place.panorama.copy()
    standing = [(figure.box[1] + figure.box[3], index) for index, figure in enumerate(figures)]
    things = [(foot, -1 - index) for index, (*_, foot) in enumerate(place.objects)]
    for _, index in sorted(standing + things):
        if index < 0:
            patch, left, top, _ = place.objects[-1 - index]
        else:
            patch, left, top = draw_person(figures[index])
        lay(panorama, patch, left % WIDTH, top)
    panorama *= rng.uniform(0.88, 1.1)
    panorama += np.roll(place.grain, int(rng.integers(WIDTH)), axis=2)
    pixels = torch.from_numpy(np.clip(panorama, 0, 255).astype(np.uint8))
    assert pixels.shape == (3, HEIGHT, WIDTH)
    return bytes(encode_jpeg(pixels, quality=_QUALITY).numpy())


def _write_labels(folder: Path, scene: str, data: bytes) -> None:
    target = folder / LABELS
    target.mkdir(parents=True, exist_ok=True)
    (target / f"{scene}.json").write_bytes(data)
