"""A truncated JPEG with an end marker is damaged; a complete one that ends in grey is not."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extract.images.read import FrameError, decode_frame

W, H = 480, 240


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def picture() -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (30, 60, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((W, H), Image.Resampling.BICUBIC)).copy()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.8])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"quality": 95}, {"optimize": True}])
def test_truncated_data_is_refused(share: float, options: dict[str, object]) -> None:
    data = jpeg(picture(), **options)
    decode_frame(data, Path("x"))
    start = data.index(b"\xff\xda") + 20
    cut = data[: start + int((len(data) - start) * share)].rstrip(b"\xff") + b"\xff\xd9"
    with pytest.raises(FrameError, match="ends early") as error:
        decode_frame(cut, Path("x"))
    assert error.value.reason == "image_damaged"


@pytest.mark.parametrize("rows", [1, 16, 40, 120, H])
@pytest.mark.parametrize("columns", [8, 100, W])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_an_image_with_a_grey_corner_is_not_refused(rows: int, columns: int, options: dict[str, object]) -> None:
    pixels = picture()
    pixels[-rows:, -columns:] = 128
    decoded = decode_frame(jpeg(pixels, **options), Path("x"))
    assert decoded.shape == (3, H, W)
