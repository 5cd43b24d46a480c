"""Crops are read by person: every shard is checked once, and the pixels are never all in memory."""

import json
import shutil
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

import store.crops
from configs.errors import IncompleteError, IntegrityError, StoreError
from extract.backbones.weights import load_backbone
from store.crops import open_crops
from store.format.manifest import BUILDING, write_manifest
from store.format.shard_file import read_shard, shard_image, shard_is_intact
from store.open import read_manifest
from store.reader import load_store
from tests.jobs import extract_store
from tests.jrdb_folder import write_folder
from tests.stores import DAMAGE, replace_shard, replace_shard_file, shard_path

SIZE, PEOPLE = 64, 40


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with crops and four units, two of each scene."""
    folder = tmp_path_factory.mktemp("original")
    data = write_folder(folder / "data", ("cafe", "hall"), frames=4, people=5)
    extract_store(load_backbone("hog", "none"), data, folder / "a.store", crops=True, crop_size=SIZE)
    return folder / "a.store"


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "a.store"))


@pytest.fixture(scope="module")
def expected(original: Path) -> NDArray[np.uint8]:
    """All crops in order, as h5py reads them."""
    rows = []
    for unit in read_manifest(original / "crops").units:
        with h5py.File(original / "crops" / "shards" / unit.shard, "r") as file:
            rows.append(file["visual"][:])
    return np.concatenate(rows)


def starts(path: Path) -> list[int]:
    """The first person of each unit, and the number of persons."""
    return read_manifest(path).row_starts("person")


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_detected_when_its_rows_are_read(path: Path, expected: NDArray[np.uint8], kind: str) -> None:
    crops, start = open_crops(path), starts(path / "crops")
    file = shard_path(path / "crops", 1)
    DAMAGE[kind](file)
    for _ in range(2):  # a failed check is not remembered as done
        with pytest.raises(IntegrityError, match=file.name):
            crops.rows(np.array([0, start[1]]))
    others = np.array([*range(start[1]), *range(start[2], start[4])])
    np.testing.assert_array_equal(crops.rows(others), expected[others])


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_before_opening_is_detected(path: Path, kind: str) -> None:
    DAMAGE[kind](shard_path(path / "crops", 1))
    with pytest.raises(IntegrityError, match=shard_path(path / "crops", 1).name):
        open_crops(path).rows(np.arange(PEOPLE))


def test_every_flipped_byte_of_a_shard_is_detected(path: Path) -> None:
    file = shard_path(path / "crops", 0)
    good = file.read_bytes()
    offsets = {*range(0, 3000, 50), *np.linspace(3000, len(good) - 1, 60).astype(int).tolist()}
    for at in offsets:
        file.write_bytes(good[:at] + bytes([good[at] ^ 16]) + good[at + 1 :])
        with pytest.raises(IntegrityError):
            open_crops(path).rows(np.array([0]))
    file.write_bytes(good)
    assert open_crops(path).rows(np.array([0])).any()


def test_a_shard_that_is_removed_after_its_check_is_detected(path: Path) -> None:
    crops = open_crops(path)
    crops.rows(np.array([0]))
    file = shard_path(path / "crops", 0)
    for damage in (lambda: file.write_bytes(file.read_bytes()[:5000]), file.unlink):
        damage()
        with pytest.raises(IntegrityError, match="cannot be read"):
            crops.rows(np.array([starts(path / "crops")[1] - 1]))


def test_threads_read_the_same_and_each_shard_is_checked_once(
    path: Path, expected: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[Path] = []

    def slow_check(file: Path) -> bool:
        checked.append(file)
        time.sleep(0.02)  # so that other threads ask for the same shard
        return shard_is_intact(file)

    monkeypatch.setattr(store.crops, "shard_is_intact", slow_check)
    crops = open_crops(path)
    assert checked == []
    rng = np.random.default_rng(0)
    wanted = [rng.integers(0, PEOPLE, 25) for _ in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for persons, rows in zip(wanted, pool.map(crops.rows, wanted), strict=True):
            np.testing.assert_array_equal(rows, expected[persons])
    assert sorted(checked) == [shard_path(path / "crops", number) for number in range(4)]


def test_only_the_requested_rows_are_in_memory(path: Path) -> None:
    """Each of the four shards has 120 KB of pixels."""
    tracemalloc.start()
    crops = open_crops(path)
    for person in range(PEOPLE):
        crops.rows(np.array([person]))
    current, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    pixels = [unit.stored_persons * 3 * SIZE**2 for unit in read_manifest(path / "crops").units]
    assert current < 100_000 < min(pixels)
    assert peak < 65_536 * 3 + 3 * SIZE**2 + 100_000 < sum(pixels)  # two headers, one block of the checksum


def test_a_shard_without_a_header_is_read(path: Path, expected: NDArray[np.uint8]) -> None:
    replace_shard(path / "crops", 1, lambda shard: shard)
    assert not shard_path(path / "crops", 1).read_bytes().startswith(b"stage2")
    np.testing.assert_array_equal(open_crops(path).rows(np.arange(PEOPLE)), expected)


def test_a_shard_of_another_dtype_is_refused(path: Path) -> None:
    replace_shard(path / "crops", 1, lambda shard: replace(shard, visual=shard.visual.astype(np.float16)))
    with pytest.raises(IntegrityError, match="other features"):
        open_crops(path)


def test_tables_that_contradict_the_rows_are_refused(path: Path) -> None:
    replace_shard(path / "crops", 1, lambda shard: replace(shard, pair=shard.pair + len(shard.box)))
    with pytest.raises(IntegrityError, match="rows of pair contradict"):
        open_crops(path)


def test_pixels_in_another_file_are_not_read(path: Path, tmp_path: Path) -> None:
    """A hostile shard with a valid checksum."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 10**6)
    file = shard_path(path / "crops", 1)
    body = tmp_path / "body.h5"
    body.write_bytes(shard_image(read_shard(file)))
    with h5py.File(body, "r+", libver=("v110", "v110")) as content:
        shape = content["visual"].shape
        del content["visual"]
        content.create_dataset("visual", shape, "u1", external=[(str(secret), 0, shape[0] * shape[1])])
    replace_shard_file(path / "crops", 1, body.read_bytes())
    with pytest.raises(IntegrityError, match="visual"):
        open_crops(path)


@pytest.mark.parametrize("offset", [10**9, 2**63, None, -1, "0"])
def test_a_header_that_points_elsewhere_is_refused(path: Path, offset: object) -> None:
    data = shard_path(path / "crops", 1).read_bytes()
    first = data.partition(b"\n")[0]
    size = int(first[-8:])
    values = json.loads(data[len(first) + 1 : size].rstrip(b"\0"))
    values["arrays"]["visual"][2] = offset
    block = json.dumps(values).encode().ljust(size - len(first) - 1, b"\0")
    replace_shard_file(path / "crops", 1, first + b"\n" + block + data[size:])
    with pytest.raises(IntegrityError, match="visual"):
        open_crops(path)


def test_a_store_without_crops_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a feature store"):
        open_crops(tmp_path)
    manifest = read_manifest(path / "crops")
    write_manifest(path / "crops", replace(manifest, state=BUILDING))
    with pytest.raises(IncompleteError):
        open_crops(path)
    write_manifest(path / "crops", replace(manifest, recipe=replace(manifest.recipe, visual_dim=12)))
    with pytest.raises(IntegrityError, match="has none"):
        open_crops(path)
    (path / "crops").rename(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=r"no crops.*with --crops"):
        open_crops(path)


def test_other_rows_than_the_features_are_refused(path: Path) -> None:
    manifest = read_manifest(path)
    unit = replace(manifest.units[0], stored_persons=manifest.units[0].stored_persons - 1)
    write_manifest(path, replace(manifest, units=(unit, *manifest.units[1:])))
    with pytest.raises(StoreError, match="persons 39, not 40"):
        open_crops(path)
    assert len(open_crops(path / "crops").tables.box) == len(load_store(path / "crops").visual) == PEOPLE
