"""Writes small JRDB-format datasets with random panoramas for tests."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from extract.annotations.jrdb import IMAGES, LABELS

SIZE = (256, 64)  # width and height of a panorama in pixels, as narrow as a panorama can be
PAIR_LABELS = ("walking together", "standing together", "sitting together", "conversation")


def person(number: int, box: Any = (20, 10, 12, 30), mentions: Any = None) -> dict[str, Any]:
    """Returns an annotated pedestrian; `mentions` maps the numbers of its partners to labels."""
    entries = [
        {"pair": f"pedestrian:{partner}", "box_pair": [0, 0, 1, 1], "inter_labels": dict.fromkeys(labels, 1)}
        for partner, labels in (mentions or {}).items()
    ]
    box = list(box) if isinstance(box, tuple) else box
    return {"label_id": f"pedestrian:{number}", "box": box, "action_label": {}, "H-interaction": entries}


def random_people(rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
    """Returns people all around the panorama, also across the seam; most neighbours are pairs."""
    people = []
    for number in range(count):
        w, h = int(rng.integers(4, 30)), int(rng.integers(10, 40))
        box = (int(rng.integers(-20, SIZE[0])), int(rng.integers(0, SIZE[1] - h)), w, h)
        mentions = {number + 1: [str(rng.choice(PAIR_LABELS))]} if number + 1 < count and rng.random() < 0.7 else {}
        people.append(person(number, box, mentions))
    return people


def write_labels(root: Path, scene: str, frames: dict[str, Any]) -> Path:
    """Writes one scene's annotation file; returns its path."""
    path = root / LABELS / f"{scene}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"labels": frames}))
    return path


def write_image(root: Path, scene: str, frame: str, seed: int = 0, size: tuple[int, int] = SIZE) -> Path:
    """Writes one random panorama; returns its path."""
    path = root / IMAGES / scene / frame
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(path, quality=92)
    return path


def write_scene(root: Path, scene: str, frames: dict[str, Any], seed: int = 0) -> None:
    """Writes one scene's annotations and an image for each frame."""
    write_labels(root, scene, frames)
    for index, frame in enumerate(frames):
        write_image(root, scene, frame, seed * 1000 + index)


def write_folder(
    root: Path, scenes: tuple[str, ...] = ("cafe", "hall"), frames: int = 3, people: int = 4, seed: int = 0
) -> Path:
    """Writes a dataset with `frames` frames per scene and `people` people per frame; returns `root`."""
    rng = np.random.default_rng(seed)
    for number, scene in enumerate(scenes):
        content = {f"{index:06d}.jpg": random_people(rng, people) for index in range(frames)}
        write_scene(root, scene, content, seed * 100 + number)
    return root


def read_labels(root: Path, scene: str) -> dict[str, Any]:
    """Reads the frames of one scene's annotation file, to change and write them again with `write_labels`."""
    return dict(json.loads((root / LABELS / f"{scene}.json").read_text())["labels"])
