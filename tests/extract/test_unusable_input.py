"""Unusable images, annotations, features and settings are skipped, or stop the job with a clear message."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

import extract.images.read
import extract.units.prepare
import extract.units.stream
from configs.errors import (
    DataError,
    DeviceError,
    TooManySkippedError,
    WeightsError,
)
from configs.extraction_config import ExtractionConfig
from extract.annotations.jrdb import IMAGES
from extract.backbones.weights import LoadedBackbone, load_backbone
from extract.job import extract_with
from store.reader import load_store, store_info
from tests.jobs import extract_store
from tests.jrdb_folder import person, write_folder, write_image, write_labels, write_scene


def test_empty_and_incomplete_scenes_are_stored_as_far_as_possible(tmp_path: Path, loaded: LoadedBackbone) -> None:
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
    features, info = load_store(tmp_path / "a.store"), store_info(tmp_path / "a.store")
    assert features.tables.scenes == ("alone", "empty", "imageless", "mixed", "names")
    assert features.tables.frame_offset.tolist() == [0, 1, 1, 3]
    assert features.tables.person_id.tolist() == [1, 1, 3]
    assert len(features.tables.pair) == 0
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
def test_an_unusable_image_is_skipped_with_its_reason_or_stops_the_job(
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


def test_too_many_unusable_images_stop_the_job(tmp_path: Path, loaded: LoadedBackbone) -> None:
    data = write_folder(tmp_path / "data", ("cafe",), frames=4)
    (data / IMAGES / "cafe" / "000001.jpg").write_bytes(b"")
    with pytest.raises(TooManySkippedError, match=r"image_empty"):
        extract_store(loaded, data, tmp_path / "a.store", max_skipped=0.2)
    assert store_info(tmp_path / "a.store")["complete"] is False
    assert extract_store(loaded, data, tmp_path / "a.store", max_skipped=0.5).to_dict()["complete"] is True


@pytest.mark.parametrize(("box", "reason"), [((5, 5, 0, 9), "box_zero_area"), ((5, 500, 9, 9), "box_outside")])
def test_unusable_annotations_stop_the_job_with_on_error_fail(
    tmp_path: Path, loaded: LoadedBackbone, box: tuple[int, ...], reason: str
) -> None:
    write_scene(tmp_path / "data", "cafe", {"1.jpg": [person(1), person(2, box)]})
    refusal = rf"cafe 1\.jpg person 2 \(.*\) cannot be used \({reason}: expected .*\); .*--on_error skip"
    with pytest.raises(DataError, match=refusal):
        extract_store(loaded, tmp_path / "data", tmp_path / "a.store", on_error="fail", max_skipped=1.0)
    config = ExtractionConfig(
        data_path=str(tmp_path / "data"), store=str(tmp_path / "a.store"), max_skipped=1.0, crop_size=32,
        num_workers=0, weights="random", device="cpu",
    )  # fmt: skip
    assert extract_with(config, loaded).to_dict()["skipped"] == {reason: 1}


def test_features_beyond_float16_are_refused(tmp_path: Path, data: Path) -> None:
    state = torchvision.models.resnet18(weights=None).state_dict()
    state["layer4.1.bn2.weight"] = torch.full((512,), 1e6)
    torch.save(state, tmp_path / "large.pth")
    large = load_backbone("resnet18", str(tmp_path / "large.pth"))
    with pytest.raises(DataError, match="beyond float16; use --dtype float32"):
        extract_store(large, data, tmp_path / "a.store")
    extract_store(large, data, tmp_path / "b.store", dtype="float32")
    state["layer4.1.conv1.weight"] = state["layer4.1.conv2.weight"] = torch.zeros(512, 512, 3, 3)
    state["layer4.0.bn2.bias"] = state["layer4.1.bn2.bias"] = torch.full((512,), 3e38)  # their sum is infinite
    torch.save(state, tmp_path / "huge.pth")
    with pytest.raises(DataError, match="NaN or infinite"):
        extract_store(
            load_backbone("resnet18", str(tmp_path / "huge.pth")), data, tmp_path / "c.store", dtype="float32"
        )


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_names_the_remedy(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def full(_: torch.Tensor) -> torch.Tensor:
        raise error

    monkeypatch.setattr(extract.units.stream, "frozen_forward", lambda *_: full)
    with pytest.raises(DeviceError, match="out of memory with batches of 4 crops; use a smaller --batch_size"):
        extract_store(loaded, data, tmp_path / "a.store")


def test_out_of_memory_while_decoding_does_not_count_as_a_damaged_image(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: bytes) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 5414400 bytes")

    monkeypatch.setattr(extract.images.read, "decode_jpeg", full)
    with pytest.raises(DeviceError, match="out of memory"):
        extract_store(loaded, data, tmp_path / "a.store", max_skipped=1.0)


def test_float16_is_refused_on_the_cpu(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    with pytest.raises(DeviceError, match="float16 needs a CUDA device"):
        extract_store(loaded, data, tmp_path / "a.store", precision="float16")


def test_bfloat16_is_refused_on_a_cpu_without_it(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {"avx2": True, "avx512_f": True, "avx512_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: others)
    with pytest.raises(DeviceError, match=r"no instructions for bfloat16.*use --precision float32"):
        extract_store(loaded, data, tmp_path / "a.store", precision="bfloat16")


def test_missing_weights_or_data_create_no_store(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    with pytest.raises(DataError, match="check --data_path"):
        extract_store(loaded, tmp_path / "none", tmp_path / "a.store")
    with pytest.raises(WeightsError):
        load_backbone("resnet18", str(tmp_path / "none.pth"))
    assert not (tmp_path / "a.store").exists()


@pytest.mark.parametrize("outside", [1, 2])
def test_a_pair_of_which_either_person_is_outside_the_image_is_skipped(
    tmp_path: Path, loaded: LoadedBackbone, outside: int
) -> None:
    boxes = {number: (5, 500 if number == outside else 5, 9, 9) for number in (1, 2)}
    write_scene(tmp_path / "data", "cafe", {"1.jpg": [person(1, boxes[1], {2: ["conversation"]}), person(2, boxes[2])]})
    extract_store(loaded, tmp_path / "data", tmp_path / "a.store", max_skipped=1.0)
    info = store_info(tmp_path / "a.store")
    assert info["skipped"] == {"box_outside": 1, "partner_skipped": 1}
    assert info["stored"] == {"frames": 1, "persons": 1, "pairs": 0}
