"""`extract --crops`: the store of crops has the same guarantees as the store of features."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import store.format.manifest
import store.writer
from configs.errors import MismatchError, StoreError
from extract.annotations.jrdb import IMAGES
from extract.backbones.weights import LoadedBackbone, load_backbone
from extract.images.crops import crop_people
from extract.images.read import read_frame
from store.checks.verify import verify
from store.crops import open_crops
from store.files import publish
from store.open import read_manifest
from store.reader import load_store
from tests.jobs import EXTRACTION_SCRIPT, StoppedError, copy_dataset, extract_store, repair_store, store_files
from tests.jrdb_folder import person, read_labels, write_labels, write_scene
from tests.stores import DAMAGE, MANIFEST_DAMAGE, shard_path

SIZE = 32


@pytest.fixture(scope="module")
def loaded() -> LoadedBackbone:
    return load_backbone("hog", "none")  # the fastest backbone


@pytest.fixture
def path(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> Path:
    extract_store(loaded, data, tmp_path / "a.store", crops=True)
    return tmp_path / "a.store"


def both_stores(path: Path) -> list[dict[str, bytes]]:
    """Returns the files of the store of features and of its store of crops."""
    return [store_files(path), store_files(path / "crops")]


def plain_crops(data: Path, size: int = SIZE) -> NDArray[np.uint8]:
    """Returns all people's crops in the order of the annotations, (40, 3 * size * size)."""
    crops = []
    for scene in sorted(path.name for path in (data / IMAGES).iterdir()):
        for frame, people in sorted(read_labels(data, scene).items()):
            boxes = np.array([item["box"] for item in people], np.float64)
            crops.append(crop_people(read_frame(data / IMAGES / scene / frame), boxes, size).numpy())
    return np.stack([crop.reshape(-1) for crop in np.concatenate(crops)])


@pytest.mark.parametrize("settings", [{}, {"views": 2, "dtype": "float32", "num_workers": 3, "batch_size": 3}])
def test_rows_are_the_crops_of_the_decoded_frames(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, settings: dict[str, Any]
) -> None:
    summary = extract_store(loaded, data, tmp_path / "a.store", crops=True, **settings)
    assert summary.crops is not None
    assert (summary.crops.statistics.frames_decoded, summary.crops.statistics.crops_forwarded) == (8, 40)
    expected = plain_crops(data)
    stored = load_store(tmp_path / "a.store" / "crops")
    np.testing.assert_array_equal(stored.visual, expected)
    assert stored.visual.dtype == np.uint8
    for folder in (tmp_path / "a.store", tmp_path / "a.store" / "crops"):
        crops = open_crops(folder)
        assert (crops.crop_size, crops.fingerprint) == (SIZE, stored.fingerprint)
        for persons in (np.arange(40), np.array([39, 3, 3, 17, 0]), np.empty(0, np.int64)):
            rows = crops.rows(persons)
            np.testing.assert_array_equal(rows, expected[persons].reshape(-1, 3 * SIZE * SIZE))
            assert rows.dtype == np.uint8


def test_both_stores_have_the_same_rows_and_features_do_not_depend_on_crops(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, path: Path
) -> None:
    extract_store(loaded, data, tmp_path / "b.store")
    assert store_files(path) == store_files(tmp_path / "b.store")
    features, crops = load_store(path), open_crops(path)
    assert features.fingerprint != crops.fingerprint
    for name, value in vars(features.tables).items():
        np.testing.assert_array_equal(getattr(crops.tables, name), value, err_msg=name)
    for persons in ([40], [-1], [0, 41]):
        with pytest.raises(IndexError):
            crops.rows(np.array(persons))


def test_a_second_run_reads_no_image(path: Path, loaded: LoadedBackbone, data: Path) -> None:
    before = both_stores(path)
    again = extract_store(loaded, data, path, crops=True)
    assert again.crops is not None
    assert (again.statistics.frames_decoded, again.crops.statistics.frames_decoded) == (0, 0)
    assert again.crops.units_reused == len(read_manifest(path / "crops").units) > 2
    assert both_stores(path) == before


class LimitedPublish:
    """Publishes `files` files and then stops the job, in place of a kill."""

    def __init__(self, files: int) -> None:
        self.files = files

    def __call__(self, *arguments: Any) -> None:
        if self.files == 0:
            raise StoppedError
        publish(*arguments)
        self.files -= 1


FILES = 7  # published for a store of four units: STORE.json, four shards, skipped.jsonl, STORE.json


@pytest.mark.parametrize("files", [1, 4, 6, 7, 8, 10, 13])
def test_a_job_that_was_interrupted_after_some_files_resumes(
    path: Path, tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    publish_until_stopped = LimitedPublish(files)
    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(store.writer, "publish", publish_until_stopped)
        patch.setattr(store.format.manifest, "publish", publish_until_stopped)
        extract_store(loaded, data, tmp_path / "b.store", crops=True)
    assert verify(tmp_path / "b.store").to_dict()["sound"] == (files == FILES)  # only the features are complete
    summary = extract_store(loaded, data, tmp_path / "b.store", crops=True)
    assert summary.crops is not None
    assert (summary.units_reused, summary.crops.units_reused) == (min(files - 1, 4), max(0, min(files - FILES - 1, 4)))
    assert both_stores(tmp_path / "b.store") == both_stores(path)


def test_a_killed_process_is_resumed(tmp_path: Path, path: Path, loaded: LoadedBackbone, data: Path) -> None:
    root = Path(__file__).parents[2]
    shards = tmp_path / "b.store" / "crops" / "shards"
    command = [sys.executable, "-c", EXTRACTION_SCRIPT.replace('weights="random"', 'backbone="hog", crops=True')]
    command += [str(data), str(tmp_path / "b.store")]
    with subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)}
    ) as job:
        while job.poll() is None and not (shards.is_dir() and len(list(shards.iterdir())) >= 1):
            time.sleep(0.0005)
        job.send_signal(signal.SIGKILL)
    assert read_manifest(tmp_path / "b.store").state == "complete"
    assert store_files(tmp_path / "b.store" / "crops").keys() <= store_files(path / "crops").keys() | {"STORE.json"}
    extract_store(loaded, data, tmp_path / "b.store", crops=True)
    assert both_stores(tmp_path / "b.store") == both_stores(path)


@pytest.mark.parametrize("kind", DAMAGE)
def test_only_the_damaged_unit_is_recomputed(path: Path, data: Path, kind: str) -> None:
    before, persons = both_stores(path), read_manifest(path / "crops").units[1].stored_persons
    DAMAGE[kind](shard_path(path / "crops", 1))
    report = verify(path)
    assert report.faults == ()
    assert report.crops is not None
    assert report.crops.bad_units == {1}
    assert not report.to_dict()["sound"]
    summary = repair_store(path, data)
    assert summary.crops is not None
    assert (summary.units, summary.crops.units) == ([], [1])
    assert (summary.statistics.frames_decoded, summary.crops.statistics.crops_forwarded) == (0, persons)
    assert both_stores(path) == before
    assert verify(path).to_dict()["sound"]


def test_an_extraction_recomputes_a_damaged_unit(path: Path, loaded: LoadedBackbone, data: Path) -> None:
    before = both_stores(path)
    DAMAGE["flipped"](shard_path(path / "crops", 2))
    summary = extract_store(loaded, data, path, crops=True)
    assert summary.crops is not None
    assert (summary.statistics.frames_decoded, 0 < summary.crops.statistics.crops_forwarded < 40) == (0, True)
    assert both_stores(path) == before


@pytest.mark.parametrize("kind", MANIFEST_DAMAGE)
def test_a_damaged_manifest_of_crops_is_rebuilt(path: Path, data: Path, kind: str) -> None:
    before, file = both_stores(path), path / "crops" / "STORE.json"
    if kind == "flipped":
        file.write_bytes(file.read_bytes().replace(b'"crops"', b'"clops"'))
    else:
        MANIFEST_DAMAGE[kind](file)
    with pytest.raises(StoreError):
        verify(path)
    summary = repair_store(path, data)
    assert summary.crops is not None
    assert summary.crops.statistics.crops_forwarded == 0
    assert both_stores(path) == before


def test_an_unusable_image_is_skipped_in_both_stores(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, path: Path
) -> None:
    copied, broken = copy_dataset(data, tmp_path / "data"), tmp_path / "b.store"
    image = copied / IMAGES / "hall" / "000002.jpg"
    good = image.read_bytes()
    image.write_bytes(b"\0" * len(good))
    info = extract_store(loaded, copied, broken, crops=True, max_skipped=0.5).to_dict()
    assert info["skipped"] == info["crops"]["skipped"]
    assert set(info["skipped"]) == {"image_format"}
    assert info["stored"] == info["crops"]["stored"]
    assert (broken / "skipped.jsonl").read_bytes() == (broken / "crops" / "skipped.jsonl").read_bytes() != b""
    assert verify(broken).to_dict()["sound"]
    expected = np.delete(plain_crops(data), range(30, 35), axis=0)
    np.testing.assert_array_equal(open_crops(broken).rows(np.arange(35)), expected)
    image.write_bytes(good)
    summary = extract_store(loaded, copied, broken, crops=True, retry_skipped=True)
    assert summary.crops is not None
    assert summary.crops.statistics.frames_decoded < 4
    assert both_stores(broken) == both_stores(path)


def test_corrected_labels_need_no_new_crops_and_a_new_scene_only_its_own(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, path: Path
) -> None:
    copied = copy_dataset(data, tmp_path / "data")
    frames = read_labels(copied, "cafe")
    frames["000001.jpg"][0]["H-interaction"] = [{"pair": "pedestrian:3", "inter_labels": {"conversation": 1}}]
    write_labels(copied, "cafe", frames)
    extract_store(loaded, copied, path, update=True)
    report = verify(path)
    assert report.crops is not None
    assert [fault.kind for fault in report.crops.faults] == ["other_rows"]
    with pytest.raises(MismatchError, match=r"changed annotations in cafe.*--crops"):
        open_crops(path)
    summary = extract_store(loaded, copied, path, update=True, crops=True)
    assert summary.crops is not None
    assert (summary.crops.statistics.frames_decoded, summary.crops.statistics.crops_forwarded) == (0, 0)
    write_scene(copied, "attic", {"000000.jpg": [person(1), person(2, mentions={1: ["conversation"]})]})
    summary = extract_store(loaded, copied, path, update=True, crops=True)
    assert summary.crops is not None
    assert (summary.crops.statistics.frames_decoded, summary.crops.statistics.crops_forwarded) == (1, 2)
    extract_store(loaded, copied, tmp_path / "fresh.store", crops=True)
    np.testing.assert_array_equal(open_crops(path).rows(np.arange(42)), plain_crops(copied))
    assert open_crops(path).fingerprint == open_crops(tmp_path / "fresh.store").fingerprint


def test_crops_have_the_selection_of_their_features(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, path: Path
) -> None:
    """A store of more frames or persons is reused, and crops are stored for all of its persons."""
    extract_store(loaded, data, tmp_path / "b.store")
    for settings in ({"frame_interval": 2}, {"persons": "paired"}):
        extract_store(loaded, data, tmp_path / "b.store", crops=True, **settings)
        assert both_stores(tmp_path / "b.store") == both_stores(path)
        shutil.rmtree(tmp_path / "b.store" / "crops")


@pytest.mark.parametrize("settings", [{"frame_interval": 2}, {"persons": "paired"}])
def test_both_stores_have_the_selection(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, settings: dict[str, Any]
) -> None:
    extract_store(loaded, data, tmp_path / "a.store", crops=True, **settings)
    tables = load_store(tmp_path / "a.store").tables
    np.testing.assert_array_equal(open_crops(tmp_path / "a.store").tables.box, tables.box)
    assert 0 < len(tables.box) < 40
