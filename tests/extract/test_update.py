"""An extraction after a change of the data or the configuration computes only what changed, or is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from configs.errors import (
    MismatchError,
)
from configs.extraction_config import ExtractionConfig
from extract.annotations.jrdb import IMAGES, LABELS
from extract.backbones.weights import LoadedBackbone
from extract.job import extract_with, requested_manifest
from store.find import find_store
from store.reader import load_store, store_info
from store.tables import Features
from tests.jobs import copy_dataset, extract_store, store_files
from tests.jrdb_folder import person, read_labels, write_folder, write_labels, write_scene


def assert_same_rows(actual: Features, expected: Features) -> None:
    np.testing.assert_array_equal(actual.visual, expected.visual)
    for name, value in vars(actual.tables).items():
        np.testing.assert_array_equal(value, getattr(expected.tables, name), err_msg=name)


def test_a_moved_dataset_uses_the_same_store(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    extract_store(loaded, data, tmp_path / "a.store")
    assert (
        extract_store(loaded, copy_dataset(data, tmp_path / "moved"), tmp_path / "a.store").statistics.frames_decoded
        == 0
    )


def test_corrected_labels_need_no_forward_pass(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    data = copy_dataset(data, tmp_path / "data")
    extract_store(loaded, data, tmp_path / "a.store")
    frames = read_labels(data, "cafe")
    frames["000001.jpg"][0]["H-interaction"] = [{"pair": "pedestrian:3", "inter_labels": {"conversation": 1}}]
    write_labels(data, "cafe", frames)
    with pytest.raises(MismatchError, match=r"changed annotations in cafe; give --update"):
        extract_store(loaded, data, tmp_path / "a.store")
    summary = extract_store(loaded, data, tmp_path / "a.store", update=True)
    assert (summary.statistics.frames_decoded, summary.statistics.crops_forwarded) == (0, 0)
    extract_store(loaded, data, tmp_path / "fresh.store")
    assert store_files(tmp_path / "a.store") == store_files(tmp_path / "fresh.store")


def test_a_corrected_box_recomputes_only_its_unit(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    data = copy_dataset(data, tmp_path / "data")
    units = extract_store(loaded, data, tmp_path / "a.store").to_dict()["units"]
    frames = read_labels(data, "hall")
    frames["000000.jpg"][0]["box"][0] += 1
    write_labels(data, "hall", frames)
    with pytest.raises(MismatchError, match="changed annotations in hall"):
        extract_store(loaded, data, tmp_path / "a.store")
    summary = extract_store(loaded, data, tmp_path / "a.store", update=True)
    assert summary.units_reused == units - 1
    assert 0 < summary.statistics.crops_forwarded < 20
    extract_store(loaded, data, tmp_path / "fresh.store")
    assert store_files(tmp_path / "a.store") == store_files(tmp_path / "fresh.store")


def test_an_added_scene_computes_only_its_crops(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    data = copy_dataset(data, tmp_path / "data")
    extract_store(loaded, data, tmp_path / "a.store")
    write_scene(data, "attic", {"000000.jpg": [person(1), person(2, mentions={1: ["conversation"]})]})
    with pytest.raises(MismatchError, match="added scenes attic"):
        extract_store(loaded, data, tmp_path / "a.store")
    summary = extract_store(loaded, data, tmp_path / "a.store", update=True)
    assert (summary.statistics.frames_decoded, summary.statistics.crops_forwarded) == (1, 2)
    extract_store(loaded, data, tmp_path / "fresh.store")
    assert_same_rows(load_store(tmp_path / "a.store"), load_store(tmp_path / "fresh.store"))


def test_features_are_not_reused_for_a_frame_that_was_unusable(tmp_path: Path, loaded: LoadedBackbone) -> None:
    """A frame whose annotation was not a list and now is an empty list is stored."""
    data = tmp_path / "data"
    write_scene(data, "cafe", {"1.jpg": [person(1)], "2.jpg": {}})
    extract_store(loaded, data, tmp_path / "a.store", max_skipped=1.0)
    write_labels(data, "cafe", {"1.jpg": [person(1)], "2.jpg": []})
    extract_store(loaded, data, tmp_path / "a.store", update=True, max_skipped=1.0)
    extract_store(loaded, data, tmp_path / "fresh.store")
    assert store_files(tmp_path / "a.store") == store_files(tmp_path / "fresh.store")


def test_a_different_recipe_is_refused_and_the_field_named(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    extract_store(loaded, data, tmp_path / "a.store")
    before = store_files(tmp_path / "a.store")
    for settings in ({"crop_size": 48}, {"dtype": "float32"}):
        with pytest.raises(MismatchError, match=next(iter(settings))):
            extract_store(loaded, data, tmp_path / "a.store", update=True, **settings)
    assert store_files(tmp_path / "a.store") == before


def test_a_store_of_more_frames_or_persons_is_reused(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    extract_store(loaded, data, Path("stores/mine.store"))
    for settings in ({"frame_interval": 2}, {"frame_interval": 5}, {"persons": "paired"}):
        config = ExtractionConfig(
            data_path=str(data), weights="random", crop_size=32, num_workers=0, device="cpu", **settings
        )
        assert find_store(requested_manifest(config, loaded)) == Path("stores/mine.store")
        summary = extract_with(config, loaded)
        assert (summary.store, summary.statistics.frames_decoded) == (Path("stores/mine.store"), 0)


def test_retry_skipped_recomputes_only_the_units_with_unusable_images(
    tmp_path: Path, loaded: LoadedBackbone, data: Path
) -> None:
    extract_store(loaded, data, tmp_path / "a.store")
    data = copy_dataset(data, tmp_path / "data")
    image = data / IMAGES / "hall" / "000003.jpg"
    good = image.read_bytes()
    image.write_bytes(b"\0" * len(good))  # as a failing disk might return at first
    extract_store(loaded, data, tmp_path / "b.store", max_skipped=0.5)
    lines = (tmp_path / "b.store" / "skipped.jsonl").read_text().splitlines()
    assert {json.loads(line)["reason"] for line in lines} == {"image_format"}
    assert store_info(tmp_path / "b.store")["skipped"] == {"image_format": len(lines)}
    image.write_bytes(good)
    with pytest.raises(MismatchError, match="changed images in hall"):
        extract_store(loaded, data, tmp_path / "b.store", max_skipped=0.5)
    summary = extract_store(loaded, data, tmp_path / "b.store", retry_skipped=True)
    assert 0 < summary.statistics.frames_decoded < 4
    assert store_files(tmp_path / "b.store") == store_files(tmp_path / "a.store")
    assert (tmp_path / "b.store" / "skipped.jsonl").read_text() == ""
    again = extract_store(loaded, data, tmp_path / "b.store", retry_skipped=True)
    assert again.statistics.frames_decoded == 0


def test_r8_missing_scenes_are_named_and_kept_unless_their_removal_is_requested(
    tmp_path: Path, loaded: LoadedBackbone
) -> None:
    data = write_folder(tmp_path / "data", ("cafe", "hall", "attic"), frames=1)
    store = tmp_path / "a.store"
    extract_store(loaded, data, store)
    before = store_files(store)
    for name in ("hall", "attic"):
        (data / LABELS / f"{name}.json").unlink()
    with pytest.raises(MismatchError, match=r"lacks 2 of the 3 scenes in .*a\.store: attic, hall; .*--remove_missing"):
        extract_store(loaded, data, store, update=True)
    with pytest.raises(MismatchError, match="removed scenes attic, hall"):  # --remove_missing alone changes nothing
        extract_store(loaded, data, store, remove_missing=True)
    assert store_files(store) == before
    summary = extract_store(loaded, data, store, update=True, remove_missing=True)
    assert summary.statistics.crops_forwarded == 0
    extract_store(loaded, data, tmp_path / "fresh.store")
    assert_same_rows(load_store(store), load_store(tmp_path / "fresh.store"))
