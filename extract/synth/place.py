"""Where a scene happens: its background, its film grain, and what stands between its people."""

from dataclasses import dataclass

import numpy as np

from extract.synth.background import HEIGHT, HORIZON, WIDTH, draw_background
from extract.synth.raster import Floats


@dataclass(frozen=True)
class Place:
    """The look of one scene, without people."""

    panorama: Floats  # (3, HEIGHT, WIDTH) float32, [0, 255]
    grain: Floats  # (1, HEIGHT, WIDTH) float32, around 0
    objects: tuple[tuple[Floats, int, int, int], ...]  # patch (4, h, w), left, top, and the row of its foot


def draw_place(scene: str, rng: np.random.Generator) -> Place:
    """A random place for the scene of this name."""
    grain = rng.normal(0, rng.uniform(1.5, 5), (1, HEIGHT, WIDTH)).astype(np.float32)
    objects = tuple(_object(rng) for _ in range(int(rng.integers(2, 6))))
    return Place(draw_background(scene, rng), grain, objects)


def _object(rng: np.random.Generator) -> tuple[Floats, int, int, int]:
    """A pillar from top to foot, or a counter: what may hide a part of the people behind it."""
    pillar = rng.random() < 0.6
    w = int(rng.integers(18, 50) if pillar else rng.integers(60, 180))
    foot = int(HORIZON) + int(rng.integers(60, 230))
    h = foot if pillar else int(rng.integers(25, 60))
    round_light = 0.75 + 0.35 * np.cos(np.linspace(-1.2, 0.9, w))
    colour = np.asarray(np.clip(rng.uniform(40, 200) + rng.normal(0, 22, 3), 15, 245), np.float32)
    patch = np.ones((4, h, w), np.float32)
    patch[:3] = colour[:, None, None] * round_light.astype(np.float32)
    return patch, int(rng.integers(0, WIDTH)), foot - h, foot
