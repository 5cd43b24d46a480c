"""Stores with crops: the commands, the size of the units, and all-black images."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.errors import StoreError
from extract.annotations.jrdb import IMAGES
from extract.backbones.weights import LoadedBackbone, load_backbone
from extract.recipe import crop_recipe
from extract.repair import repair
from extract.units.plan import UnitSize
from store.checks.verify import verify
from store.crops import open_crops
from store.open import read_manifest
from store.pack import pack_store
from tests.jobs import extract_store, run_cli, store_files
from tests.jrdb_folder import write_folder
from tests.stores import DAMAGE, shard_path

SIZE = 32


@pytest.fixture(scope="module")
def loaded() -> LoadedBackbone:
    return load_backbone("hog", "none")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"), ("cafe", "hall"), frames=4, people=5)


def test_the_units_of_crops_have_a_bounded_size(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    """The limit on pixels does not change the units of features."""
    unit_size = UnitSize(pixel_bytes=7 * 3 * SIZE**2)
    extract_store(loaded, data, tmp_path / "a.store", crops=True, unit_size=unit_size)
    assert [unit.persons for unit in read_manifest(tmp_path / "a.store").units] == [20, 20]
    units = read_manifest(tmp_path / "a.store" / "crops").units
    assert max(unit.persons for unit in units) <= 1.5 * 7 + 5
    assert sum(unit.persons for unit in units) == 40
    before = store_files(tmp_path / "a.store" / "crops")
    (tmp_path / "a.store" / "crops" / "STORE.json").unlink()
    repair(tmp_path / "a.store", data, unit_size=unit_size)
    assert store_files(tmp_path / "a.store" / "crops") == before
    assert [UnitSize().crops_for(crop_recipe(size)) for size in (32, 112, 224, 1024)] == [4096, 891, 222, 10]
    assert UnitSize().crops_for(read_manifest(tmp_path / "a.store").recipe) == 4096


def test_black_crops_are_sound(tmp_path: Path, loaded: LoadedBackbone) -> None:
    data = write_folder(tmp_path / "data", ("cafe",), frames=1)
    Image.new("RGB", (256, 64)).save(data / IMAGES / "cafe" / "000000.jpg")
    extract_store(loaded, data, tmp_path / "a.store", crops=True)
    assert not open_crops(tmp_path / "a.store").rows(np.arange(4)).any()
    assert verify(tmp_path / "a.store").to_dict()["crops"]["sound"]


def test_extract_info_verify_and_repair_include_the_crops(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, crops = tmp_path / "a.store", tmp_path / "a.store" / "crops"

    def output(code: int, *arguments: str | Path) -> str:
        assert run_cli(*arguments) == code
        return capsys.readouterr().out

    machine = ("--data_path", data, "--device", "cpu", "--num_workers", "0")
    recipe = ("--store", path, "--backbone", "hog", "--crop_size", "32")
    job = json.loads(output(0, "extract", *machine, *recipe, "--crops", "--json"))
    assert (job["crops"]["persons"], job["crops"]["dtype"], job["crops"]["visual_dim"]) == (40, "uint8", 3072)
    assert json.loads(output(0, "store", "info", path, "--json"))["crops"]["persons"] == 40
    assert f"{crops} (complete)" in output(0, "store", "info", path)
    assert f"{crops} is sound" in output(0, "store", "verify", path)
    DAMAGE["flipped"](shard_path(crops, 0))
    assert f"{crops} is faulty (damaged_shard 1)" in output(4, "store", "verify", path)
    assert f"{crops} is repaired: 1 units" in output(0, "store", "repair", path, *machine)
    assert output(0, "store", "verify", crops)


def test_a_packed_store_cannot_contain_crops(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    extract_store(loaded, data, tmp_path / "a.store", crops=True)
    pack_store(tmp_path / "a.store", tmp_path / "a.h5")
    with pytest.raises(StoreError, match="name a folder with --store"):
        extract_store(loaded, data, tmp_path / "a.h5", crops=True)
    with pytest.raises(StoreError, match="packed"):
        open_crops(tmp_path / "a.h5")
