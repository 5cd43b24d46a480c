"""Draws predictions into frames: each person's box, and for each pair a line with the class and its probability.

Label, colour and probability belong to the line. A box has a class's colour only if all pairs of the person agree.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.utils import draw_bounding_boxes

from configs.panorama import AUTO, edges_touch
from configs.printable import printable
from store.tables import Floats, Ints

COLORS = ("#ffb000", "#38b6ff", "#ff5fa2", "#7fdc6a", "#c59bff", "#ffe14d", "#5fe0d0", "#ff8a5f")
UNPAIRED = "#c8c8c8"  # colour of people without a pair
MIXED = "#ffffff"  # colour of people whose pairs have different classes
_GROUND = "#101820"  # behind labels
_TEXT_SIZE = (6, 13)  # width of a character and height of a line in pixels, of Pillow's default font
_LINE_WIDTH = 3  # pixels


def draw_frame(
    pixels: Tensor,
    boxes: Floats,
    pair: Ints,
    probability: Tensor,
    classes: tuple[str, ...],
    panorama: str = AUTO,
) -> Tensor:
    """Draws boxes and predictions into a frame.

    Args:
        pixels: (3, H, W) uint8.
        boxes: (P, 4) x y width height in pixels.
        pair: (M, 2) rows of `boxes`.
        probability: (M, C).
        classes: (C,) names.
        panorama: see `configs.panorama.edges_touch`.

    Returns:
        (3, H, W) uint8.
    """
    _, height, width = pixels.shape
    touch = bool(edges_touch(panorama, width, height))
    predictions = probability.argmax(1).tolist()
    pair_colors = [COLORS[prediction % len(COLORS)] for prediction in predictions]
    for (a, b), color in zip(pair.tolist(), pair_colors, strict=True):
        pixels = _draw_line(pixels, boxes[a], boxes[b], color, touch)
    drawn_boxes = [  # a box across the seam of the panorama is drawn at both edges
        (box, color)
        for (x, y, w, h), color in zip(boxes.tolist(), box_colors(len(boxes), pair, pair_colors), strict=True)
        for box in (_split_at_seam(x % width, y, w, h, width) if touch else [(x, y, x + w, y + h)])
    ]
    if not drawn_boxes:
        return pixels
    corners = torch.tensor([box for box, _ in drawn_boxes]).clamp_min(0)
    corners[:, 0::2].clamp_(max=width - 1)
    corners[:, 1::2].clamp_(max=height - 1)
    pixels = draw_bounding_boxes(pixels, corners, colors=[color for _, color in drawn_boxes], width=2)
    texts = [
        f"{printable(classes[best])} {row[best]:.0%}"
        for best, row in zip(predictions, probability.tolist(), strict=True)
    ]
    return _draw_labels(
        pixels, [_middle(boxes[a], boxes[b], width, touch) for a, b in pair.tolist()], texts, pair_colors
    )


def box_colors(persons: int, pair: Ints, pair_colors: Sequence[str]) -> list[str]:
    """The colour of each person's box: that of the person's pairs, MIXED if they differ, UNPAIRED without a pair."""
    colors = [UNPAIRED] * persons
    for persons_of_pair, color in zip(pair.tolist(), pair_colors, strict=True):
        for person in persons_of_pair:
            colors[person] = color if colors[person] in (UNPAIRED, color) else MIXED
    return colors


def _draw_labels(
    pixels: Tensor, middles: Sequence[tuple[float, float]], texts: Sequence[str], colors: Sequence[str]
) -> Tensor:
    """Writes each text on a dark ground at the middle of its line, below labels that are already there."""
    if not texts:
        return pixels
    _, height, width = pixels.shape
    places: list[tuple[int, int, int]] = []  # left, top and width in pixels
    for (x, y), text in zip(middles, texts, strict=True):
        size = _TEXT_SIZE[0] * len(text) + 4
        left = int(min(max(x - size / 2, 0), max(width - size, 0)))
        top = int(min(max(y - _TEXT_SIZE[1] / 2, 0), max(height - 2 * _TEXT_SIZE[1], 0)))
        while any(
            abs(top - other) < _TEXT_SIZE[1] + 2 and left < at + w and at < left + size for at, other, w in places
        ):
            top += 1
        places.append((left, top, size))
    corners = torch.tensor([(left, top, left + 1, top + 1) for left, top, _ in places]).clamp_min(0)
    corners[:, 0::2].clamp_(max=width - 1)
    corners[:, 1::2].clamp_(max=height - 1)
    drawn: Tensor = draw_bounding_boxes(
        pixels,
        corners,
        list(texts),
        list(colors),
        label_colors=list(colors),
        fill_labels=True,
        label_background_colors=_GROUND,
    )
    return drawn


def _middle(box_a: Floats, box_b: Floats, width: int, touch: bool) -> tuple[float, float]:
    """The middle of the line that `_draw_line` draws."""
    xa, xb = box_a[0] + box_a[2] / 2, box_b[0] + box_b[2] / 2
    dx = (xb - xa + width / 2) % width - width / 2 if touch else xb - xa
    x = xa + dx / 2
    return float(x % width if touch else x), float((box_a[1] + box_a[3] / 2 + box_b[1] + box_b[3] / 2) / 2)


def _split_at_seam(x: float, y: float, w: float, h: float, width: int) -> list[tuple[float, float, float, float]]:
    """The corners x0 y0 x1 y1 of a box, and if it crosses the right edge those of the rest at the left edge."""
    boxes = [(x, y, x + w, y + h)]
    return boxes if x + w <= width else [*boxes, (0.0, y, x + w - width, y + h)]


def _draw_line(pixels: Tensor, box_a: Floats, box_b: Floats, color: str, touch: bool) -> Tensor:
    """Draws a straight line between the centres of two boxes; if the edges touch, the shorter way around."""
    _, height, width = pixels.shape
    xa, xb = box_a[0] + box_a[2] / 2, box_b[0] + box_b[2] / 2
    dx = (xb - xa + width / 2) % width - width / 2 if touch else xb - xa
    ya, yb = box_a[1] + box_a[3] / 2, box_b[1] + box_b[3] / 2
    steps = torch.linspace(0, 1, int(2 * max(abs(dx), abs(yb - ya))) + 2)
    x = (xa + steps * dx).round().long()
    x = x % width if touch else x.clamp(0, width - 1)
    y = (ya + steps * (yb - ya)).round().long()
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    pixels = pixels.clone()
    for offset in range(-(_LINE_WIDTH // 2), _LINE_WIDTH // 2 + 1):
        pixels[:, (y + offset).clamp(0, height - 1), x] = torch.tensor([[red], [green], [blue]], dtype=torch.uint8)
    return pixels
