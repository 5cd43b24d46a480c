"""Draws a scene without people once: a room or an open square, in all directions, and objects in front of people.

The panorama is a cylinder around a camera 1 m above flat ground. A ground point at a distance of r metres is
FOCAL / r pixels below the horizon; the top of a wall at distance r is FOCAL * (height - 1) / r pixels above it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from extract.synth.raster import Colour, Floats

WIDTH, HEIGHT = 3760, 480  # pixels of JRDB's stitched panoramas
HORIZON = 190.0  # pixel row
FOCAL = WIDTH / (2 * np.pi)  # pixels per radian
_OUTDOOR_SCENES = ("clark-center", "gates-to-clark", "hewlett", "huang-lane", "memorial", "meyer", "tressider")
_PLASTER: tuple[Colour, ...] = ((214, 206, 190), (178, 190, 196), (206, 186, 160), (160, 150, 140), (190, 200, 180))
_GROUND: tuple[Colour, ...] = ((150, 140, 126), (120, 124, 130), (164, 132, 98), (104, 98, 96), (176, 172, 164))


@dataclass(frozen=True)
class Wall:
    """The wall that is visible in each column of the panorama."""

    distance: Floats  # (W,) metres
    along: Floats  # (W,) position along the wall in metres
    side: Floats  # (W,) number of the wall, 0-3


@dataclass(frozen=True)
class Background:
    """A scene without people."""

    panorama: Floats  # (3, HEIGHT, WIDTH) float32, [0, 255]
    noise: Floats  # (1, HEIGHT, WIDTH) float32 image noise, around 0
    objects: tuple[tuple[Floats, int, int, int], ...]  # patch (4, h, w), left, top, and the row of its foot


def draw_background(scene: str, rng: np.random.Generator) -> Background:
    """Draws a random background; the scene's name determines whether it is outdoors."""
    noise = rng.normal(0, rng.uniform(1.5, 5), (1, HEIGHT, WIDTH)).astype(np.float32)
    objects = tuple(_draw_object(rng) for _ in range(int(rng.integers(2, 6))))
    return Background(_draw_panorama(scene, rng), noise, objects)


def _draw_panorama(scene: str, rng: np.random.Generator) -> Floats:
    """Returns (3, HEIGHT, WIDTH) float32 RGB in [0, 255]."""
    outdoors = scene.startswith(_OUTDOOR_SCENES)
    half = rng.uniform(14, 26, 2) if outdoors else rng.uniform(5.5, 11, 2)
    wall = _trace_walls(float(half[0]), float(half[1]), float(rng.uniform(0, 2 * np.pi)))
    top = float(rng.uniform(6, 10)) if outdoors else float(rng.uniform(2.8, 3.8))
    picture = _draw_sky(rng) if outdoors else _draw_ceiling(rng, top)
    rows = np.arange(HEIGHT, dtype=np.float32)[:, None]
    skyline = top + (np.round(3 * _random_wave(rng, 9)) if outdoors else 0.0)
    up = 1.0 + (HORIZON - rows) * wall.distance / FOCAL  # (H, W): metres above the ground on the wall
    walls = _draw_walls(rng, wall, up, outdoors)
    _blend(picture, walls, np.clip((skyline - up) * FOCAL / wall.distance, 0, 1))
    _blend(picture, _draw_ground(rng, rows, outdoors), np.clip(-up * FOCAL / wall.distance, 0, 1))
    if outdoors:
        _draw_plants(picture, rng)
    light = 1.0 + 0.12 * _random_wave(rng, 3)
    picture *= (light * rng.uniform(0.72, 1.06)).astype(np.float32)
    picture *= rng.uniform(0.93, 1.07, (3, 1, 1)).astype(np.float32)  # light colour
    return np.clip(picture, 0, 255)


def _blend(picture: Floats, over: Floats, alpha: Floats) -> None:
    """Blends `over` into `picture` with the opacity `alpha` in [0, 1]."""
    picture += alpha.astype(np.float32) * (over - picture)


def _draw_colour(rng: np.random.Generator, palette: tuple[Colour, ...]) -> Floats:
    base = np.asarray(palette[int(rng.integers(len(palette)))], np.float32)
    return np.clip(base + rng.normal(0, 9, 3), 0, 255).astype(np.float32)[:, None, None]


def _random_wave(rng: np.random.Generator, waves: int) -> Floats:
    """Returns a random periodic curve (WIDTH,), a sum of `waves` sines, with a maximum magnitude of 1."""
    angle = np.linspace(0, 2 * np.pi, WIDTH, endpoint=False)
    order = np.arange(1, waves + 1)[:, None]
    phase, size = rng.uniform(0, 2 * np.pi, (waves, 1)), rng.uniform(0.3, 1, (waves, 1))
    curve = (size * np.sin(order * angle + phase)).sum(0)
    return np.asarray(curve / np.abs(curve).max(), np.float32)


def _smooth_noise(rng: np.random.Generator, cell: int) -> Floats:
    """Returns noise (HEIGHT, WIDTH) in [-1, 1] that is smooth over `cell` pixels and continuous at the seam."""
    columns, rows = WIDTH // cell, HEIGHT // cell + 2
    coarse = rng.uniform(-1, 1, (rows, columns)).astype(np.float32)
    x, y = np.arange(WIDTH) * columns / WIDTH, np.arange(HEIGHT) / cell
    left, above = x.astype(int), y.astype(int)
    fx, fy = (x - left).astype(np.float32), (y - above).astype(np.float32)[:, None]
    wide = coarse[:, left] * (1 - fx) + coarse[:, (left + 1) % columns] * fx
    return np.asarray(wide[above] * (1 - fy) + wide[above + 1] * fy)


def _trace_walls(half_x: float, half_y: float, turn: float) -> Wall:
    """Returns the walls of a room of 2 half_x by 2 half_y metres around the camera, turned by `turn` radians."""
    angle = np.arange(WIDTH) / FOCAL + turn
    to_x = half_x / np.maximum(np.abs(np.cos(angle)), 1e-6)
    to_y = half_y / np.maximum(np.abs(np.sin(angle)), 1e-6)
    distance = np.minimum(to_x, to_y)
    along = np.where(to_x < to_y, distance * np.sin(angle), distance * np.cos(angle)) + 40.0
    side = np.where(to_x < to_y, np.cos(angle) > 0, 2 + (np.sin(angle) > 0))
    return Wall(distance.astype(np.float32), along.astype(np.float32), side.astype(np.float32))


def _draw_sky(rng: np.random.Generator) -> Floats:
    high = _draw_colour(rng, ((110, 160, 220), (150, 180, 210)))
    low = _draw_colour(rng, ((214, 226, 236), (236, 224, 206)))
    fade = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None].clip(0, 0.4) / 0.4
    cloud = np.clip(_smooth_noise(rng, 94) + 0.5 * _smooth_noise(rng, 40) - 0.1, 0, 0.8)
    sky = high + fade * (low - high)
    return np.asarray(sky + cloud * (245 - sky), np.float32)


def _draw_ceiling(rng: np.random.Generator, height: float) -> Floats:
    """Draws panels and lamps in the same perspective as the ground."""
    rows = np.arange(HEIGHT, dtype=np.float32)[:, None]
    east, north = _project_plane(np.maximum(HORIZON - rows, 1.0), height - 1.0)
    shade = 196 - 26 * (np.floor(east) + np.floor(north)) % 2
    lamp = (np.mod(east, 3.2) < 0.7) & (np.mod(north, 3.2) < 1.4)
    tint = _draw_colour(rng, ((255, 250, 240), (240, 246, 255))) / 255
    return np.asarray(tint * np.where(lamp, 252.0, shade), np.float32)


def _project_plane(below: Floats, height: float) -> tuple[Floats, Floats]:
    """Returns the positions (east, north), (H, W) in metres, of the pixels of a horizontal plane.

    Args:
        below: (H, 1) distance of each pixel row from the horizon.
        height: vertical distance of the plane from the camera in metres.
    """
    distance = FOCAL * height / below
    angle = np.arange(WIDTH, dtype=np.float32) / FOCAL
    return (distance * np.cos(angle)).astype(np.float32), (distance * np.sin(angle)).astype(np.float32)


def _draw_ground(rng: np.random.Generator, rows: Floats, outdoors: bool) -> Floats:
    east, north = _project_plane(np.maximum(rows - HORIZON, 1.0), 1.0)
    size = float(rng.uniform(0.5, 1.1))
    kind = int(rng.integers(3))
    if kind == 0:  # tiles
        texture = ((np.floor(east / size) + np.floor(north / size)) % 2) * 2 - 1
    elif kind == 1:  # boards
        texture = np.sin(np.floor(east / (0.4 * size)) * 12.9) + 0.3 * np.sin(9 * east)
    else:  # carpet, gravel or grass
        texture = _smooth_noise(rng, 5) + _smooth_noise(rng, 20)
    far = np.clip((rows - HORIZON) / 90, 0.15, 1.0)  # fine patterns fade with the distance
    lawn: tuple[Colour, ...] = ((112, 138, 78), (96, 122, 74))
    base = _draw_colour(rng, lawn if outdoors and kind == 2 else _GROUND)
    return np.asarray(base * (1 + 0.11 * far * texture + 0.05 * _smooth_noise(rng, 8)) * (0.82 + 0.2 * far), np.float32)


def _draw_walls(rng: np.random.Generator, wall: Wall, up: Floats, outdoors: bool) -> Floats:
    """Draws walls with a pattern, a skirting board, and evenly spaced windows, doors or posters.

    Args:
        up: (H, W) height above the ground in metres.
    """
    base = _draw_colour(rng, _PLASTER) * (0.86 + 0.07 * wall.side)
    course = float(rng.uniform(0.25, 0.5))
    brick = np.sin(up * (2 * np.pi / course)) * np.sign(np.sin(wall.along * 4 + np.floor(up / course) * np.pi))
    picture = base * (1 + 0.06 * brick * rng.integers(2) + 0.05 * _smooth_noise(rng, 30))
    step = float(rng.uniform(2.2, 4.0))
    cell, at = np.floor(wall.along / step), np.mod(wall.along, step) / step  # (W,)
    for slot in range(2 if not outdoors else 1):
        pick = np.sin(cell * 7.3 + wall.side * 3.1 + slot * 1.7)
        picture = _draw_opening(rng, picture, at, up, pick > (0.1 if slot else -0.5), slot == 1, outdoors)
    picture *= np.where((up < 0.14) & (up > 0), np.float32(0.6), np.float32(1.0))
    return np.asarray(picture, np.float32)


def _draw_opening(
    rng: np.random.Generator,
    picture: Floats,
    at: Floats,
    up: Floats,
    selected: NDArray[np.bool_],
    poster: bool,
    outdoors: bool,
) -> Floats:
    """Draws a window or door, or a poster, in the `selected` cells; outdoors it is repeated on each floor.

    Args:
        at: (W,) position in the cell, in [0, 1].
        up: (H, W) height above the ground in metres.
        selected: (W,) columns whose cell has the opening.
    """
    low, high = (1.1, 1.1 + rng.uniform(0.6, 1.0)) if poster else (rng.choice((0.0, 0.9)), rng.uniform(2.0, 2.5))
    left, right = (0.62, 0.9) if poster else (0.12, rng.uniform(0.42, 0.58))
    level = np.mod(up, 3.2) if outdoors else up
    frame = 0.02
    x, y = (at > left) & (at < right) & selected, (level > low) & (level < high) & (up > 0)
    inside_x = (at > left + frame) & (at < right - frame)
    inside_y = (level > low + 0.06) & (level < high - 0.06)
    pane: tuple[Colour, ...] = ((92, 120, 146), (60, 70, 84), (176, 200, 214), (112, 84, 62))
    art: tuple[Colour, ...] = ((186, 80, 62), (70, 110, 150), (226, 200, 120), (90, 130, 100))
    fill = _draw_colour(rng, art if poster else pane) * (1 + 0.2 * np.sin(at * 23 + 2 * level))
    picture = np.where(x & y, picture * 0.55, picture)
    return np.where(x & y & inside_x & inside_y, fill, picture)


def _draw_plants(picture: Floats, rng: np.random.Generator) -> None:
    """Draws bushes and trees in front of the buildings."""
    crown = 40 + 36 * _random_wave(rng, 11) + 10 * _random_wave(rng, 60) + 5 * _random_wave(rng, 170)
    rows = np.arange(HEIGHT, dtype=np.float32)[:, None]
    leaf = _draw_colour(rng, ((74, 104, 60), (98, 120, 66), (58, 88, 66)))
    leaves = leaf * (1 + 0.35 * _smooth_noise(rng, 6) + 0.2 * _smooth_noise(rng, 20))
    inside = np.clip((rows - (HORIZON + 12 - crown)) / 2, 0, 1) * np.clip((HORIZON + 26 - rows) / 2, 0, 1)
    _blend(picture, leaves.astype(np.float32), inside * (crown > 26))


def _draw_object(rng: np.random.Generator) -> tuple[Floats, int, int, int]:
    """Draws a pillar or a counter, which may hide people; returns its patch, left, top and the row of its foot."""
    pillar = rng.random() < 0.6
    w = int(rng.integers(18, 50) if pillar else rng.integers(60, 180))
    foot = int(HORIZON) + int(rng.integers(60, 230))
    h = foot if pillar else int(rng.integers(25, 60))
    shading = 0.75 + 0.35 * np.cos(np.linspace(-1.2, 0.9, w))
    colour = np.asarray(np.clip(rng.uniform(40, 200) + rng.normal(0, 22, 3), 15, 245), np.float32)
    patch = np.ones((4, h, w), np.float32)
    patch[:3] = colour[:, None, None] * shading.astype(np.float32)
    return patch, int(rng.integers(0, WIDTH)), foot - h, foot
