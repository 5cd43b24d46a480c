"""A shard is read back exactly, and a damaged or hostile file is refused."""

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import IntegrityError
from store.files import sha256
from store.format.shard import Skipped
from store.format.shard_file import parse_shard, read_shard, shard_image, shard_is_intact
from tests.stores import SHARD_SIZES, assert_same_shard, make_shard


@given(SHARD_SIZES)
def test_a_round_trip_is_exact_and_the_same_rows_give_the_same_bytes(sizes: tuple[int, ...]) -> None:
    shard = make_shard(*sizes)
    image = shard_image(shard)
    assert_same_shard(shard, parse_shard(image, "x"))
    assert image == shard_image(make_shard(*sizes))


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


@given(TEXT, TEXT, TEXT)
def test_any_text_is_read_back(name: str, label: str, item: str) -> None:
    skipped = (Skipped("person", "s", name, item, "bad_id"), Skipped("person", "s", name, item * 9, "bad_id"))
    shard = make_shard(1)
    shard = replace(shard, frame_name=np.array([name]), label_sets=((label,), (label, name)), skipped=skipped)
    assert_same_shard(shard, parse_shard(shard_image(shard), "x"))


def write_shard(folder: Path, image: bytes) -> Path:
    """A file with these bytes and a matching name."""
    path = folder / f"u00000000-{sha256(image)}.h5"
    path.write_bytes(image)
    return path


def test_flipped_bits_are_detected(tmp_path: Path) -> None:
    image = shard_image(make_shard(2, 2, 2))
    path = write_shard(tmp_path, image)
    assert_same_shard(read_shard(path), parse_shard(image, "x"))
    rng = np.random.default_rng(0)
    for at in [0, len(image) - 1, *rng.integers(0, len(image), 200).tolist()]:
        flipped = bytearray(image)
        flipped[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        assert not shard_is_intact(path)
        with pytest.raises(IntegrityError, match="checksum"):
            read_shard(path)


@pytest.mark.parametrize("size", [0, 1, 100, 2000, -1])
def test_a_truncated_shard_is_detected(tmp_path: Path, size: int) -> None:
    image = shard_image(make_shard())
    path = write_shard(tmp_path, image)
    path.write_bytes(image[:size])
    with pytest.raises(IntegrityError, match="checksum"):
        read_shard(path)
    with pytest.raises(IntegrityError):
        parse_shard(image[:size], "x")


def test_a_missing_shard_a_folder_and_a_fifo_are_refused(tmp_path: Path) -> None:
    fifo, folder = tmp_path / "u1-x.h5", tmp_path / "u2-x.h5"
    os.mkfifo(fifo)
    folder.mkdir()
    for path in (fifo, folder, tmp_path / "u3-x.h5"):
        assert not shard_is_intact(path)
        with pytest.raises(IntegrityError, match="cannot be read"):
            read_shard(path)


@settings(max_examples=200)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_damage_with_a_valid_checksum_raises_only_integrity_errors(seed: int, flips: int) -> None:
    image = bytearray(IMAGE)
    rng = np.random.default_rng(seed)
    for at in rng.integers(0, len(image), flips):
        image[at] = rng.integers(256)
    try:
        parse_shard(bytes(image), "x")
    except IntegrityError as error:
        assert "x" in str(error)


IMAGE = shard_image(make_shard(2, 2, 2, 2, dim=2))


def changed(change: Any) -> bytes:
    """The bytes of a shard after `change(file)` through h5py."""
    buffer = io.BytesIO(shard_image(make_shard()))
    with h5py.File(buffer, "r+") as file:
        change(file)
    return buffer.getvalue()


def with_dataset(name: str, **options: Any) -> bytes:
    """The bytes of a shard whose dataset `name` is created again with other options."""

    def change(file: h5py.File) -> None:
        data = file[name][()]
        del file[name]
        file.create_dataset(name, **({"data": data} | options))

    return changed(change)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("visual", {"chunks": (2, 2)}),
        ("visual", {"chunks": (2, 2), "compression": "gzip"}),
        ("visual", {"data": np.zeros((12, 8), ">f2")}),
        ("visual", {"data": np.zeros((12, 8), "i4")}),
        ("visual", {"data": np.zeros(12, "f4")}),
        ("visual", {"data": np.zeros((11, 8), "f2")}),
        ("box", {"data": np.zeros((12, 5))}),
        ("label", {"data": np.full(5, 2, "i4")}),
        ("label", {"data": np.full(5, -1, "i4")}),
        ("pair", {"data": np.full((5, 2), 12)}),
        ("pair", {"data": np.full((5, 2), -1)}),
        ("frame_offset", {"data": np.array([0, 8, 4, 12])}),
        ("frame_offset", {"data": np.array([0, 4, 8, 11])}),
        ("frame_offset", {"data": np.array([1, 4, 8, 12])}),
        ("person_id", {"data": np.zeros(12, "u8")}),
        ("skipped", {"data": np.array([b"[1, 2]"])}),
        ("skipped", {"data": np.array([b"not json"])}),
        ("skipped", {"data": np.array([b'{"kind": "frame"}'])}),
        ("label_sets", {"data": np.array([b"3", b"4"])}),
        ("label_sets", {"data": np.array([b"[3]", b"[4]"])}),
        ("label_sets", {"data": np.array([b"[" * 50_000, b"[]"])}),
        ("frame_name", {"data": np.array([b"\xff", b"b", b"c"])}),
        ("frame_name", {"data": np.array(["a", "b", "c"], object), "dtype": h5py.string_dtype()}),
        ("spatial", {"data": h5py.Empty("f4")}),
        # declared but not stored
        ("visual", {"data": None, "shape": (2**20, 2**20), "dtype": "f2"}),
        ("visual", {"data": None, "shape": (2**33, 2**31), "dtype": "f4"}),
        ("visual", {"data": None, "shape": (0, 2**40), "dtype": "f2"}),
        ("person_id", {"data": None, "shape": (2**50,), "dtype": "i8"}),
    ],
)
def test_another_layout_is_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        parse_shard(with_dataset(name, **options), "x")


@pytest.mark.parametrize("name", ["visual", "box", "label", "skipped", "frame_name"])
def test_a_missing_dataset_is_refused(name: str) -> None:
    with pytest.raises(IntegrityError, match=name):
        parse_shard(changed(lambda file: file.pop(name)), "x")


LINKS = {
    "external": lambda path: h5py.ExternalLink(str(path), "visual"),
    "soft": lambda path: h5py.SoftLink("/box"),
    "dangling": lambda path: h5py.SoftLink("/nowhere"),
    "itself": lambda path: h5py.SoftLink("/visual"),
}


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("name", ["visual", "visual_flipped"])
def test_links_are_refused_and_not_followed(tmp_path: Path, kind: str, name: str) -> None:
    fifo = tmp_path / "fifo"  # opening it would block forever
    os.mkfifo(fifo)

    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file[name] = LINKS[kind](fifo)

    with pytest.raises(IntegrityError, match=name):
        parse_shard(changed(change), "x")


def test_a_group_instead_of_a_dataset_is_refused() -> None:
    def change(file: h5py.File) -> None:
        del file["visual"]
        file.create_group("visual")

    with pytest.raises(IntegrityError, match="visual"):
        parse_shard(changed(change), "x")


def test_external_storage_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "secret.bin"
    target.write_bytes(b"s" * 1000)
    image = with_dataset("visual", data=None, shape=(12, 8), dtype="f2", external=[(str(target), 0, 192)])
    with pytest.raises(IntegrityError, match="visual"):
        parse_shard(image, "x")
    assert target.read_bytes() == b"s" * 1000


@pytest.mark.parametrize("unlimited", [False, True])
def test_virtual_datasets_are_refused_and_their_sources_not_opened(tmp_path: Path, unlimited: bool) -> None:
    fifo = tmp_path / "source.h5"  # opening it would block forever
    os.mkfifo(fifo)

    def change(file: h5py.File) -> None:
        del file["visual"]
        maxshape = (None, 8) if unlimited else None
        layout = h5py.VirtualLayout((12, 8), "f2", maxshape=maxshape)
        source = h5py.VirtualSource(str(fifo), "visual", (12, 8), maxshape=maxshape)
        if unlimited:
            layout[: h5py.h5s.UNLIMITED, :] = source[: h5py.h5s.UNLIMITED, :]
        else:
            layout[:] = source
        file.create_virtual_dataset("visual", layout)

    with pytest.raises(IntegrityError, match="visual"):
        parse_shard(changed(change), "x")


@pytest.mark.parametrize("value", [3, np.zeros(5), h5py.Empty("f4"), np.void(b"\x80\x04N."), b"\xff"])
def test_attributes_must_be_text(value: Any) -> None:
    with pytest.raises(IntegrityError):
        parse_shard(changed(lambda file: file.attrs.__setitem__("scene", value)), "x")


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    for image in (data, b"\x89HDF\r\n\x1a\n" + data):
        with pytest.raises(IntegrityError):
            parse_shard(image, "x")
