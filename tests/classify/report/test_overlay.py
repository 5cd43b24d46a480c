"""Drawn predictions: what belongs to a pair is drawn on its line, and a box never contradicts a pair."""

import numpy as np
import pytest
import torch
from torch import Tensor

from classify.report import overlay
from classify.report.overlay import COLORS, MIXED, UNPAIRED, draw_frame

CLASSES = ("Walking", "Standing", "Sitting")
BOXES = np.array([[20.0, 60, 30, 60], [150, 60, 30, 60], [280, 60, 30, 60], [380, 60, 20, 60]])
SIZE = (3, 200, 420)


def draw(pair: list[tuple[int, int]], probability: list[list[float]], boxes: np.ndarray = BOXES) -> Tensor:  # type: ignore[type-arg]
    black = torch.zeros(SIZE, dtype=torch.uint8)
    return draw_frame(
        black, boxes, np.array(pair).reshape(-1, 2), torch.tensor(probability).reshape(-1, 3), CLASSES, "yes"
    )


def color_of(pixels: Tensor, x: float, y: float) -> str:
    return "#" + "".join(f"{value:02x}" for value in pixels[:, int(y), int(x)].tolist())


def box_color(pixels: Tensor, row: int) -> str:
    """The colour of a box's lower edge."""
    x, y, w, h = BOXES[row]
    return color_of(pixels, x + w / 4, y + h)


def test_r13_a_person_in_pairs_of_several_classes_has_a_neutral_box() -> None:
    pixels = draw([(0, 1), (1, 2)], [[0.9, 0.1, 0.0], [0.1, 0.2, 0.7]])
    assert [box_color(pixels, row) for row in range(4)] == [COLORS[0], MIXED, COLORS[2], UNPAIRED]
    assert color_of(pixels, 60, 90) == COLORS[0]  # the line of the first pair
    assert color_of(pixels, 190, 90) == COLORS[2]


@pytest.mark.parametrize("order", [1, -1])
def test_r13_a_person_whose_pairs_agree_has_their_color_in_any_order(order: int) -> None:
    pairs = [(0, 1), (1, 2), (2, 3)][::order]
    pixels = draw(pairs, [[0.1, 0.8, 0.1], [0.0, 0.6, 0.4], [0.1, 0.2, 0.7]][::order])
    assert [box_color(pixels, row) for row in range(4)] == [COLORS[1], COLORS[1], MIXED, COLORS[2]]


def test_r13_mixed_stays_mixed_after_a_third_pair() -> None:
    pixels = draw([(0, 1), (1, 2), (1, 3)], [[0.9, 0.1, 0.0], [0.1, 0.2, 0.7], [0.8, 0.1, 0.1]])
    assert box_color(pixels, 1) == MIXED


def labels_of(monkeypatch: pytest.MonkeyPatch, pair: list[tuple[int, int]], probability: list[list[float]]) -> object:
    """(text, colour, middle x, middle y) of each label."""
    drawn: list[tuple[str, str, float, float]] = []

    def record(pixels: Tensor, middles: list[tuple[float, float]], texts: list[str], colors: list[str]) -> Tensor:
        drawn.extend((text, color, *middle) for middle, text, color in zip(middles, texts, colors, strict=True))
        return pixels

    monkeypatch.setattr(overlay, "_draw_labels", record)
    draw(pair, probability)
    return drawn


def test_r13_text_and_color_of_a_label_are_those_of_its_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    assert labels_of(monkeypatch, [(0, 1), (1, 2)], [[0.9, 0.1, 0.0], [0.1, 0.2, 0.7]]) == [
        ("Walking 90%", COLORS[0], 100.0, 90.0),
        ("Sitting 70%", COLORS[2], 230.0, 90.0),
    ]


def test_r13_the_label_of_a_pair_across_the_seam_is_at_the_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    assert labels_of(monkeypatch, [(0, 3)], [[0.9, 0.1, 0.0]]) == [("Walking 90%", COLORS[0], 2.5, 90.0)]


def test_labels_are_drawn_inside_the_frame_and_do_not_cover_each_other() -> None:
    ground = torch.tensor([0x10, 0x18, 0x20], dtype=torch.uint8)
    close = np.array([[400.0, 180, 10, 15], [405, 180, 10, 15], [402, 180, 10, 15]])
    one = draw([(0, 1)], [[0.9, 0.1, 0.0]], close)
    two = draw([(0, 1), (1, 2)], [[0.9, 0.1, 0.0], [0.1, 0.2, 0.7]], close)
    rows = [(pixels[:, :, :395] == ground[:, None, None]).all(0).any(1).sum().item() for pixels in (one, two)]
    assert rows[0] >= 8  # the height of a label, left of the boxes
    assert rows[1] >= rows[0] + 8  # the second label is not on the first one
    assert color_of(two, 419, 199) == "#000000"
