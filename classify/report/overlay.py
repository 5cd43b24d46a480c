"""Pictures of predictions: each person's box, and a line with the answer between the two of a pair."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.io import write_jpeg
from torchvision.utils import draw_bounding_boxes

from extract.annotations.jrdb import IMAGES, image_path
from extract.images.read import read_frame
from store.format.shard import Shard
from store.tables import Floats, Ints

COLORS = ("#ffb000", "#38b6ff", "#ff5fa2", "#7fdc6a", "#c59bff", "#ffe14d", "#5fe0d0", "#ff8a5f")
FREE = "#c8c8c8"  # people without a pair
_LINE = 3  # pixels


def draw_scene(
    shard: Shard, pair: Ints, probability: Tensor, classes: tuple[str, ...], data_path: Path, folder: Path
) -> None:
    """Writes an overlay of every frame of `shard` to folder/<scene>/<frame>.jpg.

    Args:
        pair: (M, 2) person rows. probability: (M, C).
    """
    target = folder / shard.scene
    target.mkdir(parents=True, exist_ok=True)
    frame_of_pair = np.searchsorted(shard.frame_offset, pair[:, 0], side="right") - 1
    for frame, name in enumerate(shard.frame_name):
        pixels = read_frame(image_path(data_path, shard.scene, str(name)), data_path / IMAGES)
        here = frame_of_pair == frame
        first = int(shard.frame_offset[frame])
        boxes = shard.box[first : shard.frame_offset[frame + 1]]
        drawn = draw_frame(pixels, boxes, pair[here] - first, probability[torch.from_numpy(here)], classes)
        write_jpeg(drawn, str(target / Path(str(name)).with_suffix(".jpg").name), quality=90)


def draw_frame(pixels: Tensor, boxes: Floats, pair: Ints, probability: Tensor, classes: tuple[str, ...]) -> Tensor:
    """(3, H, W) uint8 with the boxes (P, 4) xywh px of people and the answers for their pairs drawn in."""
    width = pixels.shape[2]
    answers = probability.argmax(1).tolist()
    colors, labels = [FREE] * len(boxes), [""] * len(boxes)
    for (a, b), answer, row in zip(pair.tolist(), answers, probability.tolist(), strict=True):
        color = COLORS[answer % len(COLORS)]
        colors[a] = colors[b] = color
        labels[a] = labels[a] or f"{classes[answer]} {row[answer]:.0%}"
    shown = [  # a box over the seam shows at both edges
        (box, color, label)
        for (x, y, w, h), color, label in zip(boxes.tolist(), colors, labels, strict=True)
        for box in _both_edges(x % width, y, w, h, width)
    ]
    for (a, b), answer in zip(pair.tolist(), answers, strict=True):
        pixels = _draw_line(pixels, boxes[a], boxes[b], COLORS[answer % len(COLORS)])
    if not shown:
        return pixels
    corners = torch.tensor([box for box, _, _ in shown]).clamp_min(0)
    corners[:, 2].clamp_(max=width - 1)
    corners[:, 3].clamp_(max=pixels.shape[1] - 1)
    drawn: Tensor = draw_bounding_boxes(
        pixels, corners, [label for *_, label in shown], [color for _, color, _ in shown], width=2
    )
    return drawn


def _both_edges(x: float, y: float, w: float, h: float, width: int) -> list[tuple[float, float, float, float]]:
    boxes = [(x, y, x + w, y + h)]
    return boxes if x + w <= width else [*boxes, (0.0, y, x + w - width, y + h)]


def _draw_line(pixels: Tensor, one: Floats, other: Floats, color: str) -> Tensor:
    """A straight line between two boxes' centres, the shorter way round."""
    _, height, width = pixels.shape
    xa, xb = one[0] + one[2] / 2, other[0] + other[2] / 2
    dx = (xb - xa + width / 2) % width - width / 2
    ya, yb = one[1] + one[3] / 2, other[1] + other[3] / 2
    steps = torch.linspace(0, 1, int(2 * max(abs(dx), abs(yb - ya))) + 2)
    x = ((xa + steps * dx).round().long()) % width
    y = (ya + steps * (yb - ya)).round().long()
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    pixels = pixels.clone()
    for offset in range(-(_LINE // 2), _LINE // 2 + 1):
        pixels[:, (y + offset).clamp(0, height - 1), x] = torch.tensor([[red], [green], [blue]], dtype=torch.uint8)
    return pixels
