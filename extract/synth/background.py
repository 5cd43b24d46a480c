"""Panoramas without people: walls, windows, pillars and a tiled floor, seamless all the way round."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extract.synth.raster import Colour, Floats

WIDTH, HEIGHT = 3760, 480
HORIZON = 200  # the row at the height of the camera


@dataclass(frozen=True)
class Place:
    """The look of one scene: its empty panorama, its film grain, and the objects that stand in front of people."""

    panorama: Floats  # (3, HEIGHT, WIDTH) float32, [0, 255]
    grain: Floats  # (1, HEIGHT, WIDTH) float32, around 0
    objects: tuple[tuple[Floats, int, int, int], ...]  # patch (4, h, w), left, top, and the row of its foot


def draw_place(rng: np.random.Generator) -> Place:
    """A random place."""
    wall, floor = _tone(rng, 60, 210), _tone(rng, 50, 190)
    panorama = np.empty((3, HEIGHT, WIDTH), np.float32)
    edge = HORIZON + int(rng.integers(15, 60))  # where the wall meets the floor
    panorama[:, :edge] = _wall(rng, wall, edge)
    panorama[:, edge:] = _floor(rng, floor, edge)
    panorama *= 1 + rng.uniform(0.06, 0.2) * smooth_noise(rng, 6)
    panorama *= 1 + rng.uniform(0.03, 0.1) * smooth_noise(rng, 60)
    light = 1 + rng.uniform(0.05, 0.3) * np.cos(2 * np.pi * (np.arange(WIDTH) / WIDTH - rng.random()))
    panorama *= light.astype(np.float32)
    grain = rng.normal(0, rng.uniform(1.5, 5), (1, HEIGHT, WIDTH)).astype(np.float32)
    objects = tuple(_object(rng) for _ in range(int(rng.integers(2, 6))))
    return Place(np.clip(panorama, 0, 255), grain, objects)


def smooth_noise(rng: np.random.Generator, cells: int) -> Floats:
    """(HEIGHT, WIDTH) noise in about [-1, 1], `cells` periods high, seamless from right to left."""
    grid = rng.uniform(-1, 1, (cells + 2, 4 * cells)).astype(np.float32)
    grid = np.concatenate([grid, grid[:, :1]], axis=1)
    rows = np.linspace(0, cells + 0.999, HEIGHT, dtype=np.float32)
    columns = np.arange(WIDTH, dtype=np.float32) * (4 * cells / WIDTH)
    top, left = rows.astype(int), columns.astype(int)
    down, right = (rows - top)[:, None], columns - left
    across = grid[:, left] * (1 - right) + grid[:, left + 1] * right  # (cells + 2, WIDTH)
    return np.asarray(across[top] * (1 - down) + across[top + 1] * down)


def _tone(rng: np.random.Generator, low: float, high: float) -> NDArray[np.float32]:
    """A muted colour, (3,)."""
    return np.clip(rng.uniform(low, high) + rng.normal(0, 22, 3), 15, 245).astype(np.float32)


def _wall(rng: np.random.Generator, tone: NDArray[np.float32], height: int) -> Floats:
    """(3, height, WIDTH): panels, windows and doors on a wall that is darker at the top."""
    shade = np.linspace(rng.uniform(0.7, 0.95), 1.08, height, dtype=np.float32)
    wall = np.broadcast_to(tone[:, None, None] * shade[None, :, None], (3, height, WIDTH)).copy()
    pitch = WIDTH // int(rng.integers(10, 40))
    wall[:, :, np.arange(WIDTH) % pitch < 3] *= 0.8
    for _ in range(int(rng.integers(6, 22))):
        w, h = int(rng.integers(40, 260)), int(rng.integers(30, max(31, height - 40)))
        left, top = int(rng.integers(0, WIDTH)), int(rng.integers(5, max(6, height - h)))
        columns = (left + np.arange(w)) % WIDTH
        wall[:, top : top + h, columns] = _tone(rng, 30, 235)[:, None, None]
        wall[:, top : top + h, columns[::40]] *= 0.7
        wall[:, [top, min(top + h, height) - 1]] *= np.where(np.isin(np.arange(WIDTH), columns), 0.6, 1.0)
    return wall


def _floor(rng: np.random.Generator, tone: NDArray[np.float32], edge: int) -> Floats:
    """(3, HEIGHT - edge, WIDTH): tiles whose rows crowd together towards the horizon."""
    below = np.arange(edge, HEIGHT, dtype=np.float32) - HORIZON + 1
    rows = ((rng.uniform(200, 700) / below).astype(int) % 2).astype(np.float32)
    columns = (np.arange(WIDTH) // (WIDTH // (2 * int(rng.integers(20, 60)))) % 2).astype(np.float32)
    tiles = np.abs(rows[:, None] - columns)
    shade = (1 - rng.uniform(0.03, 0.2) * tiles) * np.linspace(0.85, 1.1, len(below), dtype=np.float32)[:, None]
    return np.asarray(tone[:, None, None] * shade, np.float32)


def _object(rng: np.random.Generator) -> tuple[Floats, int, int, int]:
    """A pillar from top to foot, or a counter: what may hide a part of the people behind it."""
    pillar = rng.random() < 0.6
    w = int(rng.integers(18, 50) if pillar else rng.integers(60, 180))
    foot = HORIZON + int(rng.integers(60, 230))
    h = foot if pillar else int(rng.integers(25, 60))
    round_light = 0.75 + 0.35 * np.cos(np.linspace(-1.2, 0.9, w))
    colour: Colour = tuple(_tone(rng, 40, 200).tolist())
    patch = np.ones((4, h, w), np.float32)
    patch[:3] = np.asarray(colour, np.float32)[:, None, None] * round_light.astype(np.float32)
    return patch, int(rng.integers(0, WIDTH)), foot - h, foot
