"""A store and annotations of JRDB's size, made from noise in seconds, with JRDB's scenes and splits."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from configs.splits import JRDB_SPLIT, SPLIT_NAMES
from extract.annotations.jrdb import IMAGES, LABELS
from extract.backbones.weights import load_backbone
from extract.recipe import feature_recipe
from extract.units.plan import DEFAULT_UNIT_SIZE
from store.format.manifest import Manifest, SceneDigest, Selection, Unit
from store.format.shard import Shard
from store.writer import open_for_writing

SCENES = tuple(sorted(scene for name in SPLIT_NAMES for scene in JRDB_SPLIT.scenes(name)))
PEOPLE = 22  # in each frame of the store
FRAMES = 27_750  # of the annotations
CLASSES = ("walking together", "standing together", "sitting together")
SHARES = (0.53, 0.38, 0.09)  # of the pairs
WIDTH, HEIGHT = 3760, 480


def write_store(path: Path, persons: int, pairs: int) -> None:
    """Writes a store of about `persons` persons x 512 (float16) and `pairs` pairs, in the same frames of each scene."""
    frames = persons // len(SCENES) // PEOPLE
    count = max(1, round(frames * PEOPLE / DEFAULT_UNIT_SIZE.crops))  # units of a scene
    runs = np.linspace(0, frames, count + 1).astype(int)
    units = [(scene, first, last) for scene in SCENES for first, last in pairwise(runs.tolist())]
    rng = np.random.default_rng(0)
    per_frame = round(pairs / len(SCENES) / frames)
    recipe = feature_recipe(load_backbone("resnet18", "random"), 112, "float16", 1, "float32")
    planned = tuple(
        Unit(scene, last - first, (last - first) * PEOPLE, (last - first) * per_frame, f"d{number}", f"v{number}")
        for number, (scene, first, last) in enumerate(units)
    )
    plan = Manifest(recipe, Selection(1, "all"), {scene: SceneDigest("", "") for scene in SCENES}, planned, "random")
    with open_for_writing(path, plan) as writer:
        for number in writer.pending:
            writer.commit(number, _shard(rng, *units[number], per_frame, recipe.visual_dim))
        writer.finish()


def _shard(rng: np.random.Generator, scene: str, first: int, last: int, per_frame: int, dim: int) -> Shard:
    """Frames `first` to `last` of a scene."""
    frames = last - first
    persons = frames * PEOPLE
    one, two = np.triu_indices(PEOPLE, 1)
    drawn = np.argsort(rng.random((frames, len(one))), axis=1)[:, :per_frame]  # for each frame, without replacement
    rows = np.stack([one[drawn], two[drawn]], axis=2) + (np.arange(frames) * PEOPLE)[:, None, None]
    noise = rng.standard_normal((persons, dim), dtype=np.float32)
    return Shard(
        scene=scene,
        visual=np.abs(noise).astype(np.float16),
        visual_flipped=None,
        box=np.stack([rng.uniform(0, limit, persons) for limit in (WIDTH, HEIGHT / 2, 100, 200)], axis=1),
        person_id=np.tile(np.arange(PEOPLE), frames),
        frame_name=np.array([f"{frame:06d}.jpg" for frame in range(first, last)]),
        frame_index=np.arange(first, last, dtype=np.int32),
        frame_size=np.full((frames, 2), (WIDTH, HEIGHT), np.int32),
        frame_offset=np.arange(frames + 1) * PEOPLE,
        frame_sha256=np.array(["0" * 64] * frames),
        pair=rows.reshape(-1, 2),
        spatial=rng.random((frames * per_frame, 8), dtype=np.float32),
        label=rng.choice(len(CLASSES), frames * per_frame, p=SHARES).astype(np.int32),
        label_sets=tuple((label,) for label in CLASSES),
        skipped=(),
    )


def write_annotations(path: Path, boxes: int) -> None:
    """Writes annotations of FRAMES frames with `boxes` boxes and nearly as many pairs; the images are a few bytes."""
    rng = np.random.default_rng(0)
    frames = np.diff(np.linspace(0, FRAMES, len(SCENES) + 1).astype(int))
    for scene, count in zip(SCENES, frames.tolist(), strict=True):
        images = path / IMAGES / scene
        images.mkdir(parents=True)
        people = np.diff(np.linspace(0, boxes * count // FRAMES, count + 1).astype(int)).tolist()
        for frame in range(count):
            (images / f"{frame:06d}.jpg").write_bytes(f"{scene} {frame}".encode())
        labels = path / LABELS / f"{scene}.json"
        labels.parent.mkdir(parents=True, exist_ok=True)
        lines = (f'"{frame:06d}.jpg": [{", ".join(_objects(rng, number))}]' for frame, number in enumerate(people))
        labels.write_text(f'{{"labels": {{{", ".join(lines)}}}}}')


def _objects(rng: np.random.Generator, people: int) -> Iterator[str]:
    """The objects of a frame as JSON; each person has a pair with the next one."""
    boxes = (rng.random((people, 4)) * (WIDTH, HEIGHT / 2, 100, 200) + (0, 0, 10, 20)).astype(int).tolist()
    labels = rng.choice(len(CLASSES), people, p=SHARES).tolist()
    for person, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        partner = (person + 1) % people
        pose = CLASSES[label].split()[0]
        values = {
            "label_id": f"pedestrian:{person}",
            "file_id": "000000.jpg",
            "box": box,
            "action_label": {pose: 1},
            "attributes": {
                "area": float(box[2] * box[3]),
                "interpolated": False,
                "no_eval": False,
                "occlusion": "Fully_visible",
                "truncated": "false",
            },
            "social_activity": {pose: 1.0},
            "social_group": {"cluster_ID": person // 2, "cluster_stat": 2},
            "H-interaction": [
                {"pair": f"pedestrian:{partner}", "box_pair": boxes[partner], "inter_labels": {CLASSES[label]: 1}}
            ],
        }
        yield json.dumps(values)
