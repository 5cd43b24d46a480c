"""A repaired store has its original bytes, and only its faulty units are recomputed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cli
from configs.errors import IncompleteError, IntegrityError, MismatchError, StoreError, WeightsError
from extract.annotations.jrdb import IMAGES
from extract.backbones.weights import LoadedBackbone, load_backbone
from extract.units.plan import DEFAULT_UNIT_SIZE
from store.checks.verify import verify
from store.format.manifest import write_manifest
from store.open import read_manifest
from store.pack import pack_store
from tests.jobs import copy_dataset, extract_store, repair_store, store_files
from tests.jrdb_folder import read_labels, write_labels
from tests.stores import DAMAGE, MANIFEST_DAMAGE, replace_shard, shard_path, with_row


@pytest.fixture
def path(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> Path:
    extract_store(loaded, data, tmp_path / "a.store")
    return tmp_path / "a.store"


def write_nan(path: Path) -> None:
    replace_shard(path, 1, with_row(float("nan")))


@pytest.mark.parametrize(
    "damage",
    [*(lambda path, kind=kind: DAMAGE[kind](shard_path(path, 1)) for kind in DAMAGE), write_nan],
)
def test_only_the_damaged_unit_is_recomputed(path: Path, data: Path, damage: Callable[[Path], object]) -> None:
    before, persons = store_files(path), read_manifest(path).units[1].stored_persons
    damage(path)
    summary = repair_store(path, data)
    assert store_files(path) == before
    assert summary.units == [1]
    assert summary.statistics.crops_forwarded == persons
    assert verify(path).faults == ()


def test_a_sound_store_is_not_changed(path: Path, data: Path) -> None:
    before = store_files(path)
    summary = repair_store(path, data / "nowhere")  # neither data nor weights are needed
    assert (summary.faults, summary.units, summary.statistics.crops_forwarded) == (0, [], 0)
    assert store_files(path) == before


def test_an_extra_shard_and_a_lost_list_of_skipped_items_need_no_forward_pass(path: Path, data: Path) -> None:
    before = store_files(path)
    (path / "skipped.jsonl").unlink()
    (path / "shards" / f"u00000009-{'0' * 64}.h5").write_bytes(b"x")
    assert repair_store(path, data).statistics.crops_forwarded == 0
    assert store_files(path) == before
    assert verify(path).faults == ()


@pytest.mark.parametrize("kind", MANIFEST_DAMAGE)
def test_a_damaged_manifest_is_rebuilt(path: Path, data: Path, kind: str) -> None:
    before = store_files(path)
    MANIFEST_DAMAGE[kind](path / "STORE.json")
    assert repair_store(path, data).statistics.crops_forwarded == 0
    assert store_files(path) == before
    assert verify(path).faults == ()


@pytest.mark.parametrize("settings", [{"frame_interval": 2}, {"persons": "paired"}, {"views": 2, "dtype": "float32"}])
def test_a_rebuilt_manifest_has_the_same_selection_and_recipe(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, settings: dict[str, Any]
) -> None:
    path = tmp_path / "a.store"
    extract_store(loaded, data, path, **settings)
    before = store_files(path)
    (path / "STORE.json").write_text("{")
    DAMAGE["flipped"](find_shard(path, 0))
    summary = repair_store(path, data)
    assert store_files(path) == before
    assert len(summary.units) == 1
    assert summary.differing == []


def find_shard(path: Path, number: int) -> Path:
    """Returns a shard's path without reading STORE.json."""
    return next((path / "shards").glob(f"u{number:08d}-*"))


def test_a_manifest_is_not_rebuilt_from_other_data_or_weights(path: Path, data: Path, tmp_path: Path) -> None:
    (path / "STORE.json").write_text("{")
    before = store_files(path)
    other = copy_dataset(data, tmp_path / "other")
    write_labels(other, "cafe", read_labels(other, "cafe") | {"000009.jpg": []})
    with pytest.raises(MismatchError, match="not made from the data"):
        repair_store(path, other)
    state = load_backbone("resnet18", "random").backbone.resnet.state_dict()
    torch.save(state | {"conv1.weight": state["conv1.weight"] + 1}, tmp_path / "other.pth")
    with pytest.raises(MismatchError, match="weights_sha256"):
        repair_store(path, data, str(tmp_path / "other.pth"))
    assert store_files(path) == before
    for file in (path / "shards").iterdir():
        file.write_bytes(b"x")
    with pytest.raises(IntegrityError, match="do not contain a common recipe"):
        repair_store(path, data)
    with pytest.raises(StoreError, match="not a feature store"):
        repair_store(data, data)


def test_other_data_and_other_weights_are_refused(path: Path, data: Path, tmp_path: Path) -> None:
    DAMAGE["flipped"](shard_path(path, 0))
    before = store_files(path)
    other = copy_dataset(data, tmp_path / "other")
    write_labels(other, "cafe", read_labels(other, "cafe") | {"000009.jpg": []})
    with pytest.raises(MismatchError, match="changed annotations in cafe"):
        repair_store(path, other)
    state = load_backbone("resnet18", "random").backbone.resnet.state_dict()
    torch.save(state | {"conv1.weight": state["conv1.weight"] + 1}, tmp_path / "other.pth")
    with pytest.raises(MismatchError, match="weights_sha256"):
        repair_store(path, data, str(tmp_path / "other.pth"))
    assert store_files(path) == before


def test_a_store_with_weights_from_a_file_needs_that_file(
    path: Path, data: Path, tmp_path: Path, loaded: LoadedBackbone
) -> None:
    torch.save(loaded.backbone.resnet.state_dict(), tmp_path / "mine.pth")
    mine = load_backbone("resnet18", str(tmp_path / "mine.pth"))
    extract_store(mine, data, tmp_path / "b.store", weights=str(tmp_path / "mine.pth"))
    before = store_files(tmp_path / "b.store")
    DAMAGE["truncated"](shard_path(tmp_path / "b.store", 0))
    with pytest.raises(WeightsError, match=r"mine\.pth"):
        repair_store(tmp_path / "b.store", data)
    repair_store(tmp_path / "b.store", data, str(tmp_path / "mine.pth"))
    assert store_files(tmp_path / "b.store") == before


def test_an_image_that_was_damaged_later_is_refused(path: Path, data: Path, tmp_path: Path) -> None:
    other = copy_dataset(data, tmp_path / "other")
    image = other / IMAGES / "cafe" / "000000.jpg"
    image.write_bytes(b"\0" * image.stat().st_size)
    DAMAGE["missing"](shard_path(path, 0))
    with pytest.raises(MismatchError, match="changed images in cafe"):
        repair_store(path, other)


def test_packed_and_unfinished_stores_are_refused(path: Path, data: Path, tmp_path: Path) -> None:
    pack_store(path, tmp_path / "a.h5")
    with pytest.raises(StoreError, match="packed file"):
        repair_store(tmp_path / "a.h5", data)
    manifest = read_manifest(path)
    write_manifest(path, type(manifest)(**vars(manifest) | {"state": "building"}))
    with pytest.raises(IncompleteError):
        repair_store(path, data)


def test_the_command(tmp_path: Path, loaded: LoadedBackbone, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.store"
    extract_store(loaded, data, path, unit_size=DEFAULT_UNIT_SIZE)
    DAMAGE["flipped"](shard_path(path, 0))
    arguments = ["store", "repair", str(path), "--data_path", str(data), "--device", "cpu", "--num_workers", "0"]
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--json"])
    assert not stop.value.code
    assert json.loads(capsys.readouterr().out)["units"] == [0]
