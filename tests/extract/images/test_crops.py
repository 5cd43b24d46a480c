"""Crops are compared with Pillow, including those across the seam of the panorama."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from extract.images import crops as images
from extract.images.crops import PADDING
from tests.oracles import round_half_up

W, H = 160, 60
crop_regions = partial(images.crop_regions, panorama="yes")
crop_people = partial(images.crop_people, panorama="yes")
boxes_outside = partial(images.boxes_outside, panorama="yes")
FRAME = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, H, W), dtype=np.uint8))
SMOOTH = torch.from_numpy(
    np.asarray(Image.fromarray(FRAME[:, :8, :20].permute(1, 2, 0).numpy()).resize((W, H))).transpose(2, 0, 1).copy()
)

EIGHTHS = st.integers(-300 * 8, 500 * 8).map(lambda value: value / 8)
SIDES = st.integers(1, 200 * 8).map(lambda value: value / 8)
BOX = st.tuples(EIGHTHS, st.integers(-100 * 8, 160 * 8).map(lambda value: value / 8), SIDES, SIDES)


def pillow_crop(frame: torch.Tensor, box: tuple[float, ...], size: int) -> NDArray[np.uint8]:
    """Cuts a crop with np.roll, slicing and Pillow's resize."""
    x, y, w, h = (round_half_up(value) for value in box)
    w, h = max(w, 1), max(h, 1)
    pad_x, pad_y = round_half_up(w * PADDING), round_half_up(h * PADDING)
    pixels = np.roll(frame.permute(1, 2, 0).numpy(), -(x - pad_x), axis=1)
    region = pixels[max(y - pad_y, 0) : min(y + h + pad_y, H), : min(w + 2 * pad_x, W)]
    return np.asarray(Image.fromarray(region).resize((size, size), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("frame", [FRAME, SMOOTH], ids=["noise", "smooth"])
@pytest.mark.parametrize("size", [32, 112])
@pytest.mark.parametrize(
    "box",
    [
        (40, 10, 20, 30),
        (0, 0, 1, 1),
        (150, 20, 30, 30),  # over the right edge
        (-12, 20, 30, 30),  # over the left edge
        (-170, 20, 30, 30),  # one turn further left
        (300, 20, 30, 30),  # one turn further right
        (30, -20, 20, 40),  # over the top
        (30, 40, 20, 90),  # over the bottom
        (5, -30, 130, 200),  # taller than the image; wider than the panorama with padding
        (0, 0, 160, 60),
        (39.5, 10.49, 20.5, 29.51),  # rounded half up
    ],
)
def test_crops_equal_pillows_within_one_level(frame: torch.Tensor, size: int, box: tuple[float, ...]) -> None:
    crops = crop_people(frame, np.array([box]), size)
    assert crops.dtype == torch.uint8
    expected = pillow_crop(frame, box, size).astype(int)
    assert np.abs(crops[0].permute(1, 2, 0).numpy().astype(int) - expected).max() <= 1


@given(st.lists(BOX, min_size=1, max_size=3), st.integers(-2 * W, 2 * W))
def test_rolling_image_and_boxes_gives_identical_crops(boxes: list[tuple[float, ...]], k: int) -> None:
    box = np.array(boxes)
    box = box[crop_regions(box, W, H)[:, 3] > 0]
    before = crop_people(FRAME, box, 32)
    after = crop_people(torch.roll(FRAME, k, dims=2), box + np.array([k, 0, 0, 0]), 32)
    assert torch.equal(before, after)


@given(st.lists(BOX, min_size=1, max_size=3))
def test_crops_of_random_boxes_are_close_to_pillows(boxes: list[tuple[float, ...]]) -> None:
    """On noise one pixel in a few thousand is two levels off: torch's weights have 16 bits, Pillow's 22."""
    box = np.array(boxes)
    box = box[~boxes_outside(box, W, H)]
    for crop, one in zip(crop_people(FRAME, box, 32), box.tolist(), strict=True):
        difference = crop.permute(1, 2, 0).numpy().astype(int) - pillow_crop(FRAME, one, 32)
        assert np.abs(difference).max() <= 2
        assert (np.abs(difference) > 1).mean() < 0.003


FLOATS = st.floats(-1e6, 1e6)
POSITIVE = st.floats(1e-9, 1e6)


@given(st.tuples(FLOATS, FLOATS, POSITIVE, POSITIVE) | st.tuples(EIGHTHS, EIGHTHS, POSITIVE, POSITIVE) | BOX)
def test_each_box_is_outside_or_has_a_crop(box: tuple[float, ...]) -> None:
    boxes = np.array([box])
    left, top, width, height = crop_regions(boxes, W, H)[0]
    if boxes_outside(boxes, W, H)[0]:
        return
    assert 0 <= left < W
    assert 1 <= width <= W
    assert 0 <= top < top + height <= H
    assert crop_people(FRAME, boxes, 32).shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("box", "outside"),
    [
        ((10, 10, 20, 30), False),
        ((-15, 10, 20, 30), False),
        ((150, 10, 20, 30), False),
        ((10, -36, 20, 30), True),  # above, including its padding
        ((10, -35, 20, 30), False),  # the padding is inside
        ((10, 65, 20, 30), False),
        ((10, 66, 20, 30), True),
        ((10, 10, 161, 30), True),  # wider than the panorama
        ((-1000, 10, 20, 30), True),
        ((1000, 10, 20, 30), True),
        ((-170, 10, 20, 30), False),  # its centre is exactly one turn to the left
        ((-171, 10, 20, 30), True),
        ((310, 10, 20, 30), False),  # its centre is exactly one turn to the right of the right edge
        ((311, 10, 20, 30), True),
        ((10, 10, 160, 30), False),  # exactly as wide as the panorama
        ((10, 10, 160.5, 30), True),
    ],
)
def test_boxes_outside(box: tuple[float, ...], outside: bool) -> None:
    assert boxes_outside(np.array([box]), W, H).tolist() == [outside]


def test_crops_have_the_order_and_number_of_the_boxes() -> None:
    boxes = np.array([[10.0, 10, 20, 30], [100, 5, 9, 20], [10, 10, 20, 30]])
    crops = crop_people(FRAME, boxes, 32)
    assert torch.equal(crops[0], crops[2])
    assert torch.equal(crops[1:2], crop_people(FRAME, boxes[1:2], 32))
    assert crop_people(FRAME, np.empty((0, 4)), 32).shape == (0, 3, 32, 32)


def test_the_frame_is_not_changed_and_its_memory_layout_does_not_matter() -> None:
    before = FRAME.clone()
    boxes = np.array([[150.0, 10, 20, 30]])
    interleaved = FRAME.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert torch.equal(crop_people(FRAME, boxes, 32), crop_people(interleaved, boxes, 32))
    assert torch.equal(before, FRAME)


def pillow_photo_crop(box: tuple[int, ...], size: int) -> NDArray[np.uint8]:
    """Cuts a crop of an ordinary image with slicing and Pillow's resize."""
    x, y, w, h = box
    pad_x, pad_y = round_half_up(w * PADDING), round_half_up(h * PADDING)
    pixels = FRAME.permute(1, 2, 0).numpy()
    region = pixels[max(y - pad_y, 0) : y + h + pad_y, max(x - pad_x, 0) : x + w + pad_x]
    return np.asarray(Image.fromarray(region).resize((size, size), Image.Resampling.BILINEAR))


@pytest.mark.parametrize(
    "box", [(150, 20, 30, 30), (-12, 20, 30, 30), (2, 10, 20, 30), (40, 10, 20, 30), (5, 5, 400, 30)]
)
def test_r12_an_ordinary_image_never_wraps(box: tuple[int, ...]) -> None:
    """160 x 60 pixels are less than 4 times as wide as high."""
    expected = pillow_photo_crop(box, 32).astype(int)
    for panorama in ("auto", "no"):
        crop = images.crop_people(FRAME, np.array([box]), 32, panorama)[0].permute(1, 2, 0).numpy().astype(int)
        assert np.abs(crop - expected).max() <= 1


@pytest.mark.parametrize(
    ("box", "outside"),
    [
        ((150, 10, 20, 30), False),
        ((163, 10, 20, 30), False),  # the padding is inside
        ((164, 10, 20, 30), True),
        ((-24, 10, 20, 30), True),
        ((-23, 10, 20, 30), False),
        ((10, 66, 20, 30), True),
        ((-50, 10, 400, 30), False),  # wider than the image
    ],
)
def test_r12_boxes_beside_an_ordinary_image_are_outside(box: tuple[float, ...], outside: bool) -> None:
    assert images.boxes_outside(np.array([box]), W, H).tolist() == [outside]


def test_auto_treats_wide_images_as_panoramas() -> None:
    box = np.array([[150.0, 10, 20, 20]])
    wide = FRAME[:, :40]  # 160 x 40
    assert torch.equal(images.crop_people(wide, box, 32), images.crop_people(wide, box, 32, "yes"))
    assert not torch.equal(images.crop_people(wide, box, 32), images.crop_people(wide, box, 32, "no"))
    almost = FRAME[:, :41]
    assert torch.equal(images.crop_people(almost, box, 32), images.crop_people(almost, box, 32, "no"))
