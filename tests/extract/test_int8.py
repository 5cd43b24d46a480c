"""int8 extractions: the same ranges and the same bits however the job runs, and a measured error."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import extract.int8
import extract.units.stream
from configs.errors import ConfigError, DataError
from configs.extraction_config import ExtractionConfig
from extract.backbones.int8 import int8_forward
from extract.backbones.weights import LoadedBackbone
from extract.job import extract_with
from extract.units.plan import plan_units
from extract.units.sample import sample_crops
from store.commands.describe import store_text
from store.format.manifest import Selection
from store.open import read_manifest
from store.reader import load_store, store_info
from tests.jobs import StoppedError, copy_dataset, extract_store, repair_store, store_files
from tests.jrdb_folder import write_folder, write_scene

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnx", reason="the extra onnx is not installed")
INT8: Any = {"precision": "int8"}


@pytest.fixture(scope="module")
def store(loaded: LoadedBackbone, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished int8 store of `data`."""
    path = tmp_path_factory.mktemp("int8") / "a.store"
    extract_store(loaded, data, path, **INT8)
    return path


def test_features_are_those_of_the_recipes_ranges(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    extract_store(loaded, data, tmp_path / "a.store", dtype="float32", **INT8)
    extract_store(loaded, data, tmp_path / "b.store", dtype="float32")
    manifest, features = read_manifest(tmp_path / "a.store"), load_store(tmp_path / "a.store")
    float32 = load_store(tmp_path / "b.store").visual
    error = np.linalg.norm(features.visual - float32, axis=1) / np.linalg.norm(float32, axis=1)
    assert 0 < error.max() < 0.1
    assert manifest.int8 is not None
    assert error.min() <= manifest.int8.error_mean <= error.max() + 1e-4  # measured on some of these people
    forward = int8_forward(loaded.backbone, torch.device("cpu"), manifest.recipe.activation_ranges)
    int8, float32 = manifest.int8.samples()
    assert len(int8) == manifest.int8.crops == 13  # a third of 40 people
    rows = features.visual.astype(np.float16).astype(np.float32)
    assert all((rows == row).all(1).any() for row in int8)  # held-out people are among the stored ones
    assert forward(torch.zeros((1, 3, 32, 32), dtype=torch.uint8)).shape == (1, 512)


def test_the_same_command_gives_the_same_bytes_with_any_threads_and_batches(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, store: Path
) -> None:
    threads = torch.get_num_threads()
    try:
        for count, settings in ((1, {"batch_size": 7}), (3, {"num_workers": 2, "batch_size": 0})):
            torch.set_num_threads(count)
            path = tmp_path / f"{count}.store"
            extract_store(loaded, data, path, **INT8, **settings)
            assert store_files(path) == store_files(store)
    finally:
        torch.set_num_threads(threads)


def test_a_finished_store_is_used_without_measuring_again(
    loaded: LoadedBackbone, data: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract.int8, "sample_crops", None)  # calling it would fail
    assert extract_store(loaded, data, store, **INT8).units_reused == 4


def test_an_extended_store_keeps_its_ranges(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    copied, path = copy_dataset(data, tmp_path / "data"), tmp_path / "a.store"
    extract_store(loaded, copied, path, **INT8)
    before, old = store_files(path), read_manifest(path).recipe.activation_ranges
    people = json.loads(next((copied / "labels").rglob("hall.json")).read_text())["labels"]
    write_scene(copied, "yard", people, seed=9)
    extract_store(loaded, copied, path, update=True, **INT8)
    after = read_manifest(path)
    assert after.recipe.activation_ranges == old
    assert {name for name in before if name.startswith("shards")} <= set(store_files(path))
    extract_store(loaded, copied, tmp_path / "fresh.store", **INT8)
    assert read_manifest(tmp_path / "fresh.store").recipe.activation_ranges != old  # of other people


def test_a_resumed_store_equals_a_fresh_one(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, calls = extract.units.stream._take_shard, []

    def stop_at_the_third(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise StoppedError
        return take(*arguments)

    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(extract.units.stream, "_take_shard", stop_at_the_third)
        extract_store(loaded, data, tmp_path / "a.store", **INT8)
    assert extract_store(loaded, data, tmp_path / "a.store", **INT8).units_reused > 0
    assert store_files(tmp_path / "a.store") == store_files(store)


@pytest.mark.parametrize("lost", ["shards", "STORE.json"])
def test_repair_restores_the_same_bytes(tmp_path: Path, loaded: LoadedBackbone, data: Path, lost: str) -> None:
    path = tmp_path / "a.store"
    extract_store(loaded, data, path, **INT8)
    before = store_files(path)
    if lost == "STORE.json":
        (path / "STORE.json").unlink()
    else:
        next((path / "shards").iterdir()).unlink()
    repair_store(path, data, "random")
    after = store_files(path)
    if lost == "STORE.json":  # what is not in the shards cannot be restored: the measured error
        assert read_manifest(path).int8 is None
        assert before.pop("STORE.json") != after.pop("STORE.json")
    assert before == after


def test_a_store_in_the_default_folder_passes_on_its_ranges(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    values: dict[str, Any] = {"weights": "random", "crop_size": 32, "device": "cpu", "precision": "int8"}

    def run(folder: Path, **settings: Any) -> Path:
        return extract_with(ExtractionConfig(data_path=str(folder), **values, **settings), loaded).store

    paired = run(data, persons="paired")
    everybody = run(data)
    assert everybody != paired
    assert read_manifest(everybody).recipe == read_manifest(paired).recipe
    other = run(write_folder(tmp_path / "other", ("yard",), frames=3, people=5, seed=5))
    assert read_manifest(other).recipe.activation_ranges != read_manifest(paired).recipe.activation_ranges


def test_an_error_above_the_limit_is_refused_before_anything_is_written(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract.int8, "MAX_ERROR", 1e-4)
    with pytest.raises(DataError, match=r"differ from float32 by \d% .* --precision float32"):
        extract_store(loaded, data, tmp_path / "a.store", **INT8)
    assert not (tmp_path / "a.store").exists()


def test_hog_and_data_of_one_person_are_refused(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    from extract.backbones.weights import load_backbone

    with pytest.raises(ConfigError, match="hog has none"):
        extract_store(load_backbone("hog", "none"), data, tmp_path / "a.store", backbone="hog", weights="none", **INT8)
    lonely = write_folder(tmp_path / "data", ("cafe",), frames=1, people=1)
    with pytest.raises(DataError, match="but 1 of the planned people"):
        extract_store(loaded, lonely, tmp_path / "a.store", **INT8)


def test_store_info_says_how_far_int8_is_from_float32(store: Path) -> None:
    info = store_info(store)
    assert info["int8"]["crops"] == 13 and "float32" not in info["int8"]
    assert "int8         of 13 held-out people: cosine to float32" in store_text(info)


def test_the_sample_is_seeded_covers_all_scenes_and_holds_out_other_frames(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", ("cafe", "hall", "yard"), frames=40, people=4)
    config = ExtractionConfig(data_path=str(data), crop_size=32, device="cpu")
    parts = [
        sample_crops(plan_units(data, Selection(1, "all"), crops=crops), config) for crops in (4096, 8)
    ]  # the same for any size of units
    assert all(torch.equal(one, two) for one, two in zip(*parts, strict=True))
    calibration, held_out = parts[0]
    assert (len(calibration), len(held_out)) == (192, 96)  # 3 of 4 people in 32 frames of each scene
    rows = [set(map(bytes, part.flatten(1).numpy())) for part in parts[0]]
    assert not rows[0] & rows[1]
