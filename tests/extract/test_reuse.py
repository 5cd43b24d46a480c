"""A store that is extended, and a store beside others, forwards only what no store has, and equals a fresh one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from configs.errors import MismatchError
from extract.annotations.jrdb import IMAGES
from extract.backbones.weights import LoadedBackbone
from extract.job import ExtractionSummary
from store.format.paths import StorePaths
from store.format.recipe import CROPS
from store.reader import store_info
from store.writer import StoreWriter
from tests.jobs import StoppedError, copy_dataset, extract_store, store_files
from tests.jrdb_folder import read_labels, write_folder, write_labels


def counts(summary: ExtractionSummary) -> tuple[int, int]:
    """(decoded frames, forwarded crops)"""
    return summary.statistics.frames_decoded, summary.statistics.crops_forwarded


def persons(path: Path) -> int:
    return int(store_info(path)["persons"])


def fresh(loaded: LoadedBackbone, data: Path, path: Path, **settings: Any) -> dict[str, bytes]:
    extract_store(loaded, data, path, **settings)
    return store_files(path)


@pytest.mark.parametrize("views", [1, 2])
def test_paired_people_are_not_forwarded_again_for_everybody(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, views: int
) -> None:
    extract_store(loaded, data, tmp_path / "a.store", persons="paired", views=views)
    paired = persons(tmp_path / "a.store")
    with pytest.raises(MismatchError, match="persons paired, not all; give --update to compute only what is missing"):
        extract_store(loaded, data, tmp_path / "a.store", views=views)
    summary = extract_store(loaded, data, tmp_path / "a.store", update=True, views=views)
    assert 0 < paired < persons(tmp_path / "a.store")
    assert summary.statistics.crops_forwarded == views * (persons(tmp_path / "a.store") - paired)
    assert summary.statistics.rows_reused == views * paired
    assert store_files(tmp_path / "a.store") == fresh(loaded, data, tmp_path / "b.store", views=views)


def test_a_smaller_interval_reads_only_the_frames_in_between(
    tmp_path: Path, loaded: LoadedBackbone, data: Path
) -> None:
    extract_store(loaded, data, tmp_path / "a.store", frame_interval=2)
    before = persons(tmp_path / "a.store")
    summary = extract_store(loaded, data, tmp_path / "a.store", update=True)
    assert counts(summary) == (4, persons(tmp_path / "a.store") - before)
    assert store_files(tmp_path / "a.store") == fresh(loaded, data, tmp_path / "b.store")


def test_the_second_view_forwards_only_the_mirrored_crops(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    extract_store(loaded, data, tmp_path / "a.store")
    with pytest.raises(MismatchError, match="views 1, not 2; give --update"):
        extract_store(loaded, data, tmp_path / "a.store", views=2)
    summary = extract_store(loaded, data, tmp_path / "a.store", views=2, update=True)
    assert counts(summary) == (8, persons(tmp_path / "a.store"))
    assert store_files(tmp_path / "a.store") == fresh(loaded, data, tmp_path / "b.store", views=2)


def test_a_corrected_box_forwards_one_crop(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    data = copy_dataset(data, tmp_path / "data")
    extract_store(loaded, data, tmp_path / "a.store")
    frames = read_labels(data, "hall")
    frames["000000.jpg"][0]["box"][0] += 1
    write_labels(data, "hall", frames)
    assert counts(extract_store(loaded, data, tmp_path / "a.store", update=True)) == (1, 1)
    assert store_files(tmp_path / "a.store") == fresh(loaded, data, tmp_path / "b.store")


def test_another_image_is_forwarded_although_its_boxes_are_the_same(
    tmp_path: Path, loaded: LoadedBackbone, data: Path
) -> None:
    data = copy_dataset(data, tmp_path / "data")
    extract_store(loaded, data, tmp_path / "a.store")
    image = data / IMAGES / "hall" / "000001.jpg"
    Image.open(image).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(image, quality=90)
    assert counts(extract_store(loaded, data, tmp_path / "a.store", update=True)) == (1, 5)
    assert store_files(tmp_path / "a.store") == fresh(loaded, data, tmp_path / "b.store")


def test_a_new_store_uses_the_features_of_the_stores_beside_it(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fresh(loaded, data, tmp_path / "fresh.store")
    monkeypatch.chdir(tmp_path)
    extract_store(loaded, data, Path("stores/paired.store"), persons="paired")
    extract_store(loaded, data, Path("stores/other.store"), crop_size=48)  # another recipe
    kept = store_files(Path("stores/paired.store"))
    summary = extract_store(loaded, data, Path("mine.store"))
    assert summary.statistics.crops_forwarded == persons(Path("mine.store")) - persons(Path("stores/paired.store"))
    assert store_files(Path("mine.store")) == expected
    assert store_files(Path("stores/paired.store")) == kept
    assert counts(extract_store(loaded, data, Path("again.store"), frame_interval=2, persons="paired")) == (0, 0)


def test_one_view_is_taken_from_a_store_of_two(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fresh(loaded, data, tmp_path / "fresh.store")
    monkeypatch.chdir(tmp_path)
    extract_store(loaded, data, Path("stores/two.store"), views=2)
    assert counts(extract_store(loaded, data, Path("one.store"))) == (0, 0)
    assert store_files(Path("one.store")) == expected


def test_a_damaged_store_beside_is_not_used(
    tmp_path: Path,
    loaded: LoadedBackbone,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = fresh(loaded, data, tmp_path / "fresh.store")
    monkeypatch.chdir(tmp_path)
    extract_store(loaded, data, Path("stores/a.store"))
    for shard in StorePaths(Path("stores/a.store")).shard_files()[1:]:
        content = bytearray(shard.read_bytes())
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    first = json.loads(Path("stores/a.store/STORE.json").read_text())["units"][0]["stored_persons"]
    summary = extract_store(loaded, data, Path("b.store"))
    assert summary.statistics.rows_reused == first
    assert "its features are not reused" in caplog.text
    assert store_files(Path("b.store")) == expected


def test_a_store_that_disappears_during_the_job_costs_only_time(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fresh(loaded, data, tmp_path / "fresh.store")
    monkeypatch.chdir(tmp_path)
    extract_store(loaded, data, Path("stores/a.store"), persons="paired")
    commit = StoreWriter.commit

    def remove_first(writer: StoreWriter, *arguments: Any) -> None:
        for shard in StorePaths(Path("stores/a.store")).shard_files():
            shard.unlink()
        commit(writer, *arguments)

    monkeypatch.setattr(StoreWriter, "commit", remove_first)
    summary = extract_store(loaded, data, Path("b.store"), num_workers=1)
    assert 0 < summary.statistics.rows_reused < persons(Path("b.store"))
    assert store_files(Path("b.store")) == expected


def test_an_extension_that_is_killed_goes_on(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract_store(loaded, data, tmp_path / "a.store", frame_interval=2)
    before = persons(tmp_path / "a.store")
    commit, committed = StoreWriter.commit, 0

    def stop(writer: StoreWriter, *arguments: Any) -> None:
        nonlocal committed
        if committed == 2:
            raise StoppedError
        committed += 1
        commit(writer, *arguments)

    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(StoreWriter, "commit", stop)
        extract_store(loaded, data, tmp_path / "a.store", update=True)
    assert persons(tmp_path / "a.store") == before  # readers still get the old store
    summary = extract_store(loaded, data, tmp_path / "a.store", update=True)
    assert summary.units_reused == 2
    assert store_files(tmp_path / "a.store") == fresh(loaded, data, tmp_path / "b.store")


def test_stored_crops_are_reused_too(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    extract_store(loaded, data, tmp_path / "a.store", persons="paired", crops=True)
    summary = extract_store(loaded, data, tmp_path / "a.store", crops=True, update=True)
    assert summary.crops is not None
    assert summary.crops.statistics.rows_reused == summary.statistics.rows_reused > 0
    extract_store(loaded, data, tmp_path / "b.store", crops=True)
    assert store_files(tmp_path / "a.store" / CROPS) == store_files(tmp_path / "b.store" / CROPS)


def test_any_sequence_of_changes_gives_the_store_of_a_fresh_extraction(tmp_path: Path, loaded: LoadedBackbone) -> None:
    rng = np.random.default_rng(3)
    data = write_folder(tmp_path / "data", ("cafe", "hall"), frames=4, people=5)
    for turn in range(8):
        scene = str(rng.choice(["cafe", "hall"]))
        frames = read_labels(data, scene)
        people = frames[str(rng.choice(sorted(frames)))]
        person = people[int(rng.integers(len(people)))]
        match rng.integers(4):
            case 0:
                person["box"] = [int(value) for value in rng.integers(5, 60, 4)]
            case 1:
                people.remove(person)
            case 2:
                person["box"] = people[0]["box"]  # two people with the same box
            case 3:
                person["box"] = [1000, 5, 8, 8]  # outside
        write_labels(data, scene, frames)
        settings = {"frame_interval": int(rng.integers(1, 3)), "persons": str(rng.choice(["all", "paired"]))}
        extract_store(loaded, data, tmp_path / "a.store", update=True, max_skipped=1.0, **settings)
        info = store_info(tmp_path / "a.store")  # a wider store of equal data is left as it is
        settings = {"frame_interval": info["frame_interval"], "persons": info["selected_persons"]}
        new = fresh(loaded, data, tmp_path / f"{turn}.store", max_skipped=1.0, **settings)
        assert store_files(tmp_path / "a.store") == new, turn
