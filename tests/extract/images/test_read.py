"""Each file is either decoded like Pillow decodes it, or refused with a reason."""

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from extract.images.formats import read_header
from extract.images.read import (
    MAX_BYTES,
    FrameError,
    decode_frame,
    read_frame,
    read_image_bytes,
)

W, H = 96, 48
RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 12, 3), dtype=np.uint8)).resize((W, H))
TURNED = Image.Exif()
TURNED[0x112] = 6  # rotate by 90 degrees to show


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


GOOD = {
    "jpeg": encoded(RGB, "JPEG", quality=90),
    "full chroma": encoded(RGB, "JPEG", subsampling=0),
    "grey": encoded(RGB.convert("L"), "JPEG"),
    "cmyk": encoded(RGB.convert("CMYK"), "JPEG"),
    "progressive": encoded(RGB, "JPEG", progressive=True),
    "exif": encoded(RGB, "JPEG", exif=TURNED),
    "restarts": encoded(RGB, "JPEG", restart_marker_rows=1),
    "png": encoded(RGB, "PNG"),
    "png grey": encoded(RGB.convert("L"), "PNG"),
    "png palette": encoded(RGB.convert("P"), "PNG"),
    "png transparent palette": encoded(RGB.convert("P"), "PNG", transparency=3),
    "png rgba": encoded(RGB.convert("RGBA"), "PNG"),
    "png grey alpha": encoded(RGB.convert("LA"), "PNG"),
    "png bits": encoded(RGB.convert("1"), "PNG"),
    "png animated": encoded(RGB, "PNG", save_all=True, append_images=[RGB.rotate(180)]),  # the first picture counts
}


@pytest.mark.parametrize("name", GOOD)
def test_images_are_decoded_as_by_pillow(tmp_path: Path, name: str) -> None:
    path = tmp_path / "frame.jpg"  # the suffix does not matter
    path.write_bytes(GOOD[name])
    decoded = read_frame(path, tmp_path)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGBA" if "transparency" in image.info else "RGB"))[..., :3]
    np.testing.assert_array_equal(decoded.permute(1, 2, 0).numpy(), expected)
    assert decoded.shape == (3, H, W)  # of the stored pixels, without EXIF rotation


def png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def jpeg_of_size(width: int, height: int) -> bytes:
    data = bytearray(GOOD["jpeg"])
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


BAD = {
    "empty": (b"", "image_empty"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>" * 9, "image_format"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n" * 9, "image_format"),
    "gif": (encoded(RGB, "GIF", save_all=True, append_images=[RGB.rotate(90)]), "image_format"),
    "bmp": (encoded(RGB, "BMP"), "image_format"),
    "tiff": (encoded(RGB, "TIFF"), "image_format"),
    "webp": (encoded(RGB, "WEBP"), "image_format"),
    "16 bit": (encoded(Image.fromarray(np.full((H, W), 40_000, np.uint16)), "PNG"), "image_format"),
    "bomb": (png_header(60_000, 60_000) + b"\0" * 99, "image_too_large"),
    "no pixels": (png_header(0, 10) + b"\0" * 99, "image_too_large"),
    "88 megapixels": (jpeg_of_size(8_801, 10_000), "image_too_large"),
    "cut": (GOOD["jpeg"][:-300], "image_damaged"),
    "header alone": (GOOD["jpeg"][:200], "image_damaged"),
    "zeros": (b"\0" * 1000, "image_format"),
    "jpeg then zeros": (GOOD["jpeg"][:200] + b"\0" * 1000, "image_damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_unusable_images_are_refused_with_their_reason(name: str) -> None:
    data, reason = BAD[name]
    with pytest.raises(FrameError, match=r"frame\.jpg") as error:
        decode_frame(data, Path("frame.jpg"))
    assert error.value.reason == reason


@pytest.mark.parametrize("name", ["jpeg", "progressive", "grey", "cmyk", "png", "png palette"])
def test_a_truncated_file_never_gives_wrong_pixels(name: str) -> None:
    whole = decode_frame(GOOD[name], Path("x"))
    for size in range(0, len(GOOD[name]), 7):
        try:
            decoded = decode_frame(GOOD[name][:size], Path("x"))
        except FrameError as error:
            assert error.reason in {"image_empty", "image_format", "image_damaged"}
        else:  # the last chunk of a PNG contains no pixels
            assert name.startswith("png")
            assert (decoded == whole).all()


@given(st.sampled_from(sorted(GOOD)), st.integers(0, 10**6), st.binary(min_size=1, max_size=4))
def test_damaged_files_give_pixels_of_the_declared_size_or_a_reason(name: str, at: int, junk: bytes) -> None:
    data = bytearray(GOOD[name])
    at %= len(data)
    data[at : at + len(junk)] = junk
    try:
        decoded = decode_frame(bytes(data), Path("x"))
    except FrameError:
        return
    header = read_header(bytes(data))
    assert header is not None
    assert decoded.shape == (3, header.height, header.width)


@given(st.binary(max_size=60))
def test_random_bytes_are_refused(junk: bytes) -> None:
    for data in (junk, b"\xff\xd8\xff" + junk, b"\x89PNG\r\n\x1a\n" + junk, GOOD["jpeg"][:30] + junk):
        with pytest.raises(FrameError):
            decode_frame(data, Path("x"))


def refused(path: Path, root: Path) -> str:
    with pytest.raises(FrameError) as error:
        read_image_bytes(path, root)
    str(error.value).encode()
    return error.value.reason


def test_only_regular_files_under_the_root_are_read(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other.jpg"
    root.mkdir()
    other.write_bytes(GOOD["jpeg"])
    (root / "out.jpg").symlink_to(other)
    (root / "up").symlink_to(tmp_path)
    (root / "self.jpg").symlink_to(root / "self.jpg")
    (root / "none.jpg").symlink_to(root / "nothing")
    (root / "folder.jpg").mkdir()
    os.mkfifo(root / "fifo.jpg")
    (root / "in.jpg").write_bytes(GOOD["jpeg"])
    (root / "alias.jpg").symlink_to(root / "in.jpg")
    assert read_image_bytes(root / "alias.jpg", root) == GOOD["jpeg"]
    reasons = {
        "out.jpg": "image_outside",
        "up/other.jpg": "image_outside",
        "../other.jpg": "image_outside",
        str(other): "image_outside",
        "/dev/zero": "image_outside",
        "self.jpg": "image_not_a_file",
        "none.jpg": "image_missing",
        "missing.jpg": "image_missing",
        "folder.jpg": "image_not_a_file",
        "fifo.jpg": "image_not_a_file",
        "in.jpg/x": "image_not_a_file",
        "a\0b.jpg": "image_not_a_file",
        "\ud800.jpg": "image_not_a_file",
        "n" * 5000: "image_not_a_file",
    }
    assert {name: refused(root / name, root) for name in reasons} == reasons


def test_a_device_is_not_an_image() -> None:
    assert refused(Path("/dev/zero"), Path("/dev")) == "image_not_a_file"


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # a sparse file, which needs no disk space
    assert refused(path, tmp_path) == "image_too_large"
