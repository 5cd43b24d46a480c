"""A shard's header gives the same layout as HDF5, and a hostile header is refused."""

import io
import json
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import IntegrityError
from store.format.shard_file import parse_shard, shard_file, shard_image
from tests.stores import SHARD_SIZES, assert_same_shard, make_shard

FILE = shard_file(make_shard(2, 2, 2, 2, dim=2))
FIRST = len(b"stage2 shard 1 00002048\n")


@given(SHARD_SIZES)
def test_a_shard_read_by_its_header_equals_one_read_by_hdf5(sizes: tuple[int, ...]) -> None:
    shard = make_shard(*sizes)
    image = shard_file(shard)
    assert_same_shard(shard, parse_shard(image, "x"))
    assert_same_shard(parse_shard(shard_image(shard), "x"), parse_shard(image, "x"))
    assert image == shard_file(make_shard(*sizes))
    with h5py.File(io.BytesIO(image), "r") as file:  # other programs can read the file too
        np.testing.assert_array_equal(file["visual"][()], shard.visual)
        np.testing.assert_array_equal(file["pair"][()], shard.pair)
        assert file.attrs["scene"] == shard.scene


def test_the_header_suffices_without_hdf5() -> None:
    size = int(FILE[:FIRST].split()[-1])
    without_hdf5 = FILE[:size] + b"\0" * 8 + FILE[size + 8 :]  # without HDF5's signature
    assert_same_shard(parse_shard(FILE, "x"), parse_shard(without_hdf5, "x"))


def with_values(values: Any) -> bytes:
    """The file with these values in its header."""
    size = int(FILE[:FIRST].split()[-1])
    return FILE[:FIRST] + json.dumps(values).encode().ljust(size - FIRST, b"\0") + FILE[size:]


def changed(change: Callable[[Any], object]) -> bytes:
    """The file after `change(values)` of the header's values."""
    size = int(FILE[:FIRST].split()[-1])
    values = json.loads(FILE[FIRST:size].rstrip(b"\0"))
    change(values)
    return with_values(values)


def test_an_unchanged_header_is_accepted() -> None:
    assert_same_shard(parse_shard(FILE, "x"), parse_shard(changed(lambda values: None), "x"))


@pytest.mark.parametrize(
    "entry",
    [
        ["<f2", [4, 2], len(FILE)],
        ["<f2", [4, 2], -8],
        ["<f2", [4, 2], None],
        ["<f2", [4, 2], True],
        ["<f2", [4, 2], 1.0],
        ["<f2", [4, 2], 10**30],
        ["<f2", [-4, -2], 0],
        ["<f2", [4, True], 0],
        ["<f2", [10**30, 10**30], 0],
        ["<f2", [0, 10**30], 0],
        ["<f2", [3, 2], 0],
        ["<f2", [8], 0],
        [">f2", [4, 2], 0],
        ["<i4", [4, 2], 0],
        ["|O", [4, 2], 0],
        ["O", [4, 2], 0],
        ["<f2,<f2", [4, 2], 0],
        ["|S0", [4, 2], 0],
        [2, [4, 2], 0],
        ["<f2", 4, 0],
        ["<f2", [4, 2]],
        [],
        None,
        {},
        "<f2",
    ],
)
def test_a_hostile_location_is_refused(entry: Any) -> None:
    with pytest.raises(IntegrityError):
        parse_shard(changed(lambda values: values["arrays"].update(visual=entry)), "x")


@pytest.mark.parametrize(
    "values",
    [
        [],
        {},
        3,
        {"arrays": {}, "attributes": {}},
        {"arrays": [], "attributes": {"scene": "a"}},
        {"arrays": None, "attributes": {"scene": "a"}},
    ],
)
def test_a_header_with_other_values_is_refused(values: Any) -> None:
    with pytest.raises(IntegrityError):
        parse_shard(with_values(values), "x")


@pytest.mark.parametrize("value", [3, None, ["a"], "\ud800"])
def test_attributes_must_be_text(value: Any) -> None:
    with pytest.raises(IntegrityError):
        parse_shard(changed(lambda values: values["attributes"].update(recipe=value)), "x")


@pytest.mark.parametrize("name", ["visual", "box", "label", "skipped", "frame_name"])
def test_a_missing_array_is_refused(name: str) -> None:
    with pytest.raises(IntegrityError, match=name):
        parse_shard(changed(lambda values: values["arrays"].pop(name)), "x")


def test_deeply_nested_json_is_refused() -> None:
    block = FILE[:FIRST].replace(b"00002048", b"00131072") + b"[" * 100_000
    with pytest.raises(IntegrityError):
        parse_shard(block.ljust(131_072, b"\0"), "x")


@settings(max_examples=300)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_damage_of_the_header_raises_only_integrity_errors(seed: int, flips: int) -> None:
    image = bytearray(FILE)
    rng = np.random.default_rng(seed)
    for at in rng.integers(0, 1200, flips):
        image[at] = rng.integers(256)
    try:
        parse_shard(bytes(image), "x")
    except IntegrityError as error:
        assert "x" in str(error)
