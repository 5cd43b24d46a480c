"""The extraction job from a folder to a store: right features, nothing twice, nothing lost, resumable."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import extract.images.read
import extract.units.prepare
import extract.units.stream
import store.writer
from configs.errors import (
    DataError,
    DeviceError,
    IntegrityError,
    MismatchError,
    StorageError,
    TooManySkippedError,
    WeightsError,
)
from configs.extraction_config import ExtractionConfig
from extract.annotations.jrdb import IMAGES
from extract.backbones.weights import LoadedBackbone, load_backbone
from extract.job import extract_with, requested_manifest
from store.format.manifest import read_manifest, store_for
from store.reader import load_store, store_info
from store.tables import Features
from tests.jobs import EXTRACTION_SCRIPT, StoppedError, copy_dataset, extract_store, store_files
from tests.jrdb_folder import SIZE, person, read_labels, write_folder, write_image, write_labels, write_scene
from tests.oracles import round_half_up, spatial_oracle


@pytest.fixture(scope="module")
def loaded() -> LoadedBackbone:
    return load_backbone("resnet18", "random")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"), ("cafe", "hall"), frames=4, people=5)


def by_plain_code(data: Path, loaded: LoadedBackbone, flip: bool = False) -> NDArray[np.float32]:
    """The features of all people: Pillow's crops and torchvision's model, one person after another."""
    model = torchvision.models.resnet18(weights=None)
    model.fc = nn.Identity()
    model.load_state_dict(loaded.backbone.resnet.state_dict())
    model.eval()
    normalise = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    rows = []
    for scene in sorted(path.name for path in (data / IMAGES).iterdir()):
        for frame, people in sorted(read_labels(data, scene).items()):
            with Image.open(data / IMAGES / scene / frame) as image:
                pixels = np.asarray(image.convert("RGB"))
            for item in people:
                x, y, w, h = item["box"]
                grow_x, grow_y = round_half_up(0.2 * w), round_half_up(0.2 * h)
                strip = np.roll(pixels, grow_x - x, axis=1)[max(y - grow_y, 0) : y + h + grow_y, : w + 2 * grow_x]
                crop = np.asarray(Image.fromarray(strip).resize((32, 32), Image.Resampling.BILINEAR)).copy()
                tensor = normalise(torch.from_numpy(crop).permute(2, 0, 1).float() / 255)
                with torch.no_grad():
                    rows.append(model((tensor.flip(-1) if flip else tensor)[None])[0].numpy())
    return np.stack(rows)


def distance(found: Any, expected: Any) -> float:
    """The largest relative distance of a row."""
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    return float((np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max())


def test_features_of_both_views_are_those_of_plain_code(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    """Within 1 %: a level more or less in a pixel of a crop is all that Pillow and torch differ by."""
    summary = extract_store(loaded, data, tmp_path / "a.store", dtype="float32", views=2)
    found = load_store(tmp_path / "a.store")
    assert distance(found.visual, by_plain_code(data, loaded)) < 0.01
    assert found.visual_flipped is not None
    assert distance(found.visual_flipped, by_plain_code(data, loaded, flip=True)) < 0.01
    assert (summary.statistics.frames_decoded, summary.statistics.crops_forwarded) == (8, 80)


def test_tables_are_the_annotations(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    extract_store(loaded, data, tmp_path / "a.store")
    tables = load_store(tmp_path / "a.store").tables
    people = [
        (scene, frame, item)
        for scene in ("cafe", "hall")
        for frame, items in sorted(read_labels(data, scene).items())
        for item in items
    ]
    assert [f"pedestrian:{number}" for number in tables.person_id] == [item["label_id"] for *_, item in people]
    assert tables.box.tolist() == [item["box"] for *_, item in people]
    assert (tables.frame_size == SIZE).all()
    expected = {
        (scene, frame, int(item["label_id"][11:]), int(entry["pair"][11:])): tuple(sorted(entry["inter_labels"]))
        for scene, frame, item in people
        for entry in item["H-interaction"]
    }
    found = {
        (
            tables.scenes[tables.frame_scene[frame]],
            str(tables.frame_name[frame]),
            int(tables.person_id[a]),
            int(tables.person_id[b]),
        ): tables.label_sets[label]
        for (a, b), frame, label in zip(tables.pair, tables.pair_frame, tables.label, strict=True)
    }
    assert found == expected
    rows = [spatial_oracle(tables.box[a], tables.box[b], *SIZE, 5) for a, b in tables.pair]
    np.testing.assert_allclose(tables.spatial, rows, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings", [{"num_workers": 1}, {"num_workers": 4}, {"batch_size": 1}, {"batch_size": 64}, {"batch_size": 0}]
)
def test_workers_and_batch_sizes_change_no_bit(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, settings: dict[str, int]
) -> None:
    extract_store(loaded, data, tmp_path / "a.store")
    extract_store(loaded, data, tmp_path / "b.store", **settings)
    assert store_files(tmp_path / "a.store") == store_files(tmp_path / "b.store")


def test_batches_are_full_over_the_borders_of_units(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    plain = extract.units.stream.frozen_forward

    def counted(*arguments: Any) -> Any:
        forward = plain(*arguments)
        return lambda crops: sizes.append(len(crops)) or forward(crops)

    monkeypatch.setattr(extract.units.stream, "frozen_forward", counted)
    summary = extract_store(loaded, data, tmp_path / "a.store", batch_size=7)
    assert sorted(sizes) == [5, 7, 7, 7, 7, 7]  # 40 crops of some five units
    assert (summary.statistics.crops_forwarded, summary.statistics.batch_size) == (40, 7)


def test_float16_is_the_rounded_float32(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    extract_store(loaded, data, tmp_path / "a.store", dtype="float32")
    extract_store(loaded, data, tmp_path / "b.store")
    full, half = load_store(tmp_path / "a.store").visual, load_store(tmp_path / "b.store").visual
    np.testing.assert_array_equal(full.astype(np.float16), half)


def test_each_frame_is_decoded_and_each_person_cropped_once(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []
    decode = extract.units.prepare.decode_frame
    monkeypatch.setattr(
        extract.units.prepare, "decode_frame", lambda raw, path: decoded.append(path) or decode(raw, path)
    )
    cropped: list[int] = []
    crop = extract.units.prepare.crop_people
    monkeypatch.setattr(extract.units.prepare, "crop_people", lambda f, b, s: cropped.append(len(b)) or crop(f, b, s))
    extract_store(loaded, data, tmp_path / "a.store")
    assert len(decoded) == len(set(decoded)) == 8
    assert sum(cropped) == 40


def test_a_second_run_does_nothing(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    first = extract_store(loaded, data, tmp_path / "a.store")
    again = extract_store(loaded, data, tmp_path / "a.store")
    assert (again.statistics.frames_decoded, again.statistics.crops_forwarded) == (0, 0)
    assert again.units_reused == first.to_dict()["units"] > 2
    assert json.loads(json.dumps(again.to_dict()))["complete"] is True


@pytest.mark.parametrize("commits", [1, 2, 4])
def test_interrupted_after_each_commit(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    extract_store(loaded, data, tmp_path / "a.store")
    publish, done = store.writer.publish, 0

    def stopping(*args: Any) -> None:
        nonlocal done
        if done == commits:
            raise StoppedError
        publish(*args)
        done += 1

    monkeypatch.setattr(store.writer, "publish", stopping)
    try:
        extract_store(loaded, data, tmp_path / "b.store", num_workers=2)
    except StoppedError:
        assert store_info(tmp_path / "b.store")["complete"] is False
    monkeypatch.undo()
    summary = extract_store(loaded, data, tmp_path / "b.store")
    assert summary.units_reused >= min(commits, summary.to_dict()["units"])
    assert store_files(tmp_path / "a.store") == store_files(tmp_path / "b.store")


def test_a_killed_process_and_its_successor(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    extract_store(loaded, data, tmp_path / "a.store")
    root = Path(__file__).parents[2]
    shards = tmp_path / "b.store" / "shards"
    command = [sys.executable, "-c", EXTRACTION_SCRIPT, str(data), str(tmp_path / "b.store")]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, env=environment) as job:
        while job.poll() is None and not (shards.is_dir() and len(list(shards.iterdir())) >= 2):
            time.sleep(0.001)
        job.send_signal(signal.SIGKILL)
    assert read_manifest(tmp_path / "b.store").state == "building"
    assert store_files(tmp_path / "b.store").keys() <= store_files(tmp_path / "a.store").keys()
    extract_store(loaded, data, tmp_path / "b.store")
    assert store_files(tmp_path / "a.store") == store_files(tmp_path / "b.store")


def test_a_full_disk_keeps_what_was_committed(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, count = os.write, 0

    def full(descriptor: int, raw: Any) -> int:
        nonlocal count
        count += 1
        if count > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, raw)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="free some space"):
        extract_store(loaded, data, tmp_path / "a.store")
    monkeypatch.setattr(os, "write", write)
    assert not list((tmp_path / "a.store" / ".tmp").iterdir())
    assert extract_store(loaded, data, tmp_path / "a.store").units_reused == 2


def assert_equal(one: Features, other: Features) -> None:
    np.testing.assert_array_equal(one.visual, other.visual)
    for name, value in vars(one.tables).items():
        np.testing.assert_array_equal(value, getattr(other.tables, name), err_msg=name)


def test_a_moved_folder_still_hits(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    extract_store(loaded, data, tmp_path / "a.store")
    assert (
        extract_store(loaded, copy_dataset(data, tmp_path / "moved"), tmp_path / "a.store").statistics.frames_decoded
        == 0
    )


def test_corrected_labels_forward_no_crop(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
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


def test_a_corrected_box_costs_its_unit(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
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


def test_an_added_scene_costs_itself(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    data = copy_dataset(data, tmp_path / "data")
    extract_store(loaded, data, tmp_path / "a.store")
    write_scene(data, "attic", {"000000.jpg": [person(1), person(2, mentions={1: ["conversation"]})]})
    with pytest.raises(MismatchError, match="added scenes attic"):
        extract_store(loaded, data, tmp_path / "a.store")
    summary = extract_store(loaded, data, tmp_path / "a.store", update=True)
    assert (summary.statistics.frames_decoded, summary.statistics.crops_forwarded) == (1, 2)
    extract_store(loaded, data, tmp_path / "fresh.store")
    assert_equal(load_store(tmp_path / "a.store"), load_store(tmp_path / "fresh.store"))


def test_a_mended_frame_is_no_mere_relabelling(tmp_path: Path, loaded: LoadedBackbone) -> None:
    """A frame whose annotation was no list and is an empty one now is stored."""
    data = tmp_path / "data"
    write_scene(data, "cafe", {"1.jpg": [person(1)], "2.jpg": {}})
    extract_store(loaded, data, tmp_path / "a.store", max_skipped=1.0)
    write_labels(data, "cafe", {"1.jpg": [person(1)], "2.jpg": []})
    extract_store(loaded, data, tmp_path / "a.store", update=True, max_skipped=1.0)
    extract_store(loaded, data, tmp_path / "fresh.store")
    assert store_files(tmp_path / "a.store") == store_files(tmp_path / "fresh.store")


def test_another_recipe_is_refused_and_its_fields_named(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    extract_store(loaded, data, tmp_path / "a.store")
    before = store_files(tmp_path / "a.store")
    for settings in ({"crop_size": 48}, {"dtype": "float32"}, {"views": 2}):
        with pytest.raises(MismatchError, match=next(iter(settings))):
            extract_store(loaded, data, tmp_path / "a.store", update=True, **settings)
    assert store_files(tmp_path / "a.store") == before


def test_a_finer_store_serves_a_coarser_run(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    extract_store(loaded, data, Path("stores/mine.store"))
    for settings in ({"frame_interval": 2}, {"frame_interval": 5}, {"persons": "paired"}):
        config = ExtractionConfig(
            data_path=str(data), weights="random", crop_size=32, num_workers=0, device="cpu", **settings
        )
        assert store_for(requested_manifest(config, loaded)) == Path("stores/mine.store")
        summary = extract_with(config, loaded)
        assert (summary.store, summary.statistics.frames_decoded) == (Path("stores/mine.store"), 0)


def test_damage_is_computed_again(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    extract_store(loaded, data, tmp_path / "a.store")
    before = store_files(tmp_path / "a.store")
    shard = sorted((tmp_path / "a.store" / "shards").iterdir())[1]
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 2] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(IntegrityError, match=shard.name):
        load_store(tmp_path / "a.store")
    summary = extract_store(loaded, data, tmp_path / "a.store")
    assert 0 < summary.statistics.crops_forwarded < 40
    assert store_files(tmp_path / "a.store") == before


def test_odd_data_each_does_the_sensible_thing(tmp_path: Path, loaded: LoadedBackbone) -> None:
    data = tmp_path / "data"
    write_scene(data, "alone", {"1.jpg": [person(1)], "2.jpg": []})
    write_labels(data, "empty", {})
    write_labels(data, "imageless", {"1.jpg": [person(1), person(2, mentions={1: ["conversation"]})]})
    write_scene(data, "mixed", {"1.jpg": [person(1), person(2, (5, 500, 9, 9), {1: ["conversation"]}), person(3)]})
    write_labels(data, "names", {"../mixed/1.jpg": [person(1)], "\ud800.jpg": [person(1)], "\0": []})
    write_image(data, "mixed", "9.jpg")
    with pytest.raises(TooManySkippedError, match=r"4 of 7 planned frames .*raise --max_skipped"):
        extract_store(loaded, data, tmp_path / "a.store")
    assert not (tmp_path / "a.store").exists()
    extract_store(loaded, data, tmp_path / "a.store", max_skipped=1.0)
    found, info = load_store(tmp_path / "a.store"), store_info(tmp_path / "a.store")
    assert found.tables.scenes == ("alone", "empty", "imageless", "mixed", "names")
    assert found.tables.frame_offset.tolist() == [0, 1, 1, 3]
    assert found.tables.person_id.tolist() == [1, 1, 3]
    assert len(found.tables.pair) == 0
    assert info["planned"] == {"frames": 7, "persons": 8, "pairs": 2}
    assert info["stored"] == {"frames": 3, "persons": 3, "pairs": 0}
    assert info["skipped"] == {"bad_frame_name": 5, "box_outside": 1, "image_missing": 4, "partner_skipped": 1}
    assert info["skipped_by_kind"] == {"frame": 4, "person": 5, "pair": 2}
    again = extract_store(loaded, data, tmp_path / "a.store", max_skipped=1.0)
    assert again.statistics.frames_decoded == 0


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_bytes(b""), "image_empty"),
        (lambda path: path.write_bytes(path.read_bytes()[:500]), "image_damaged"),
        (lambda path: path.write_text("<html>"), "image_format"),
        (lambda path: (path.unlink(), path.mkdir()), "image_not_a_file"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "image_not_a_file"),
        (lambda path: (path.unlink(), path.symlink_to("/etc/hostname")), "image_outside"),
    ],
)
def test_a_bad_image_is_skipped_by_name_or_stops_the_job(
    tmp_path: Path, loaded: LoadedBackbone, damage: Any, reason: str
) -> None:
    data = write_folder(tmp_path / "data", ("cafe",), frames=3)
    damage(data / IMAGES / "cafe" / "000001.jpg")
    with pytest.raises(DataError, match=r"000001\.jpg.*--on_error skip"):
        extract_store(loaded, data, tmp_path / "a.store", on_error="fail", max_skipped=1.0)
    summary = extract_store(loaded, data, tmp_path / "a.store", max_skipped=0.5, num_workers=2)
    info = summary.to_dict()
    assert set(info["skipped"]) == {reason}
    assert info["skipped_by_kind"]["frame"] == 1
    assert {kind: info["stored"][kind] for kind in ("frames", "persons")} == {"frames": 2, "persons": 8}
    assert load_store(tmp_path / "a.store").tables.frame_name.tolist() == ["000000.jpg", "000002.jpg"]


def test_too_many_bad_images_stop_the_job(tmp_path: Path, loaded: LoadedBackbone) -> None:
    data = write_folder(tmp_path / "data", ("cafe",), frames=4)
    (data / IMAGES / "cafe" / "000001.jpg").write_bytes(b"")
    with pytest.raises(TooManySkippedError, match=r"image_empty"):
        extract_store(loaded, data, tmp_path / "a.store", max_skipped=0.2)
    assert store_info(tmp_path / "a.store")["complete"] is False
    assert extract_store(loaded, data, tmp_path / "a.store", max_skipped=0.5).to_dict()["complete"] is True


def test_features_beyond_float16_are_refused(tmp_path: Path, data: Path) -> None:
    state = torchvision.models.resnet18(weights=None).state_dict()
    state["layer4.1.bn2.weight"] = torch.full((512,), 1e6)
    torch.save(state, tmp_path / "large.pth")
    large = load_backbone("resnet18", str(tmp_path / "large.pth"))
    with pytest.raises(DataError, match="beyond float16; use --dtype float32"):
        extract_store(large, data, tmp_path / "a.store")
    extract_store(large, data, tmp_path / "b.store", dtype="float32")
    state["layer4.1.conv1.weight"] = state["layer4.1.conv2.weight"] = torch.zeros(512, 512, 3, 3)
    state["layer4.0.bn2.bias"] = state["layer4.1.bn2.bias"] = torch.full((512,), 3e38)  # together: infinity
    torch.save(state, tmp_path / "huge.pth")
    with pytest.raises(DataError, match="NaN or infinite"):
        extract_store(
            load_backbone("resnet18", str(tmp_path / "huge.pth")), data, tmp_path / "c.store", dtype="float32"
        )


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_a_full_memory_is_said_with_its_remedy(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def full(_: torch.Tensor) -> torch.Tensor:
        raise error

    monkeypatch.setattr(extract.units.stream, "frozen_forward", lambda *_: full)
    with pytest.raises(DeviceError, match="out of memory with batches of 4 crops; use a smaller --batch_size"):
        extract_store(loaded, data, tmp_path / "a.store")


def test_an_image_that_the_memory_is_too_full_for_is_not_a_damaged_one(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: bytes) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 5414400 bytes")

    monkeypatch.setattr(extract.images.read, "decode_jpeg", full)
    with pytest.raises(DeviceError, match="out of memory"):
        extract_store(loaded, data, tmp_path / "a.store", max_skipped=1.0)


def test_a_precision_that_the_cpu_has_not_is_refused(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    with pytest.raises(DeviceError, match="bfloat16 needs a CUDA device"):
        extract_store(loaded, data, tmp_path / "a.store", precision="bfloat16")


def test_missing_weights_and_data_leave_no_store(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    with pytest.raises(DataError, match="check --data_path"):
        extract_store(loaded, tmp_path / "none", tmp_path / "a.store")
    with pytest.raises(WeightsError):
        load_backbone("resnet18", str(tmp_path / "none.pth"))
    assert not (tmp_path / "a.store").exists()
