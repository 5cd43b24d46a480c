"""A repaired store is, byte for byte, one that was never damaged, and nothing else was computed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cli
import extract.units.plan
from configs.errors import DataError, IncompleteError, IntegrityError, MismatchError, StoreError, WeightsError
from configs.extraction_config import ExtractionConfig
from extract.annotations.jrdb import IMAGES
from extract.backbones.weights import LoadedBackbone, load_backbone
from extract.job import extract_with
from extract.repair import Machine, repair
from store.format.manifest import read_manifest, write_manifest
from store.pack import pack_store
from store.reader import store_info
from store.verify import verify
from tests.jobs import content, copy_of, run
from tests.jrdb_folder import edit_labels, person, write_folder, write_labels, write_scene
from tests.stores import DAMAGE, MANIFEST_DAMAGE, forge, shard_path, with_row

MACHINE = Machine(batch_size=4, num_workers=0, device="cpu")


@pytest.fixture(scope="module")
def loaded() -> LoadedBackbone:
    return load_backbone("resnet18", "random")


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two or three units a scene instead of one."""
    monkeypatch.setattr(extract.units.plan, "UNIT_CROPS", 8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"), ("cafe", "hall"), frames=4, people=5)


@pytest.fixture
def path(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> Path:
    run(loaded, data, tmp_path / "a.store")
    return tmp_path / "a.store"


def nan_in_a_row(path: Path) -> None:
    forge(path, 1, with_row(float("nan")))


@pytest.mark.parametrize(
    "damage",
    [*(lambda path, kind=kind: DAMAGE[kind](shard_path(path, 1)) for kind in DAMAGE), nan_in_a_row],
)
def test_one_damaged_unit_is_computed_again(path: Path, data: Path, damage: Callable[[Path], object]) -> None:
    before, persons = content(path), read_manifest(path).units[1].stored_persons
    damage(path)
    found = repair(path, data, machine=MACHINE)
    assert content(path) == before
    assert found.units == [1]
    assert found.tally.crops_forwarded == persons
    assert verify(path).faults == ()


def test_a_sound_store_is_left_alone(path: Path, data: Path) -> None:
    before = content(path)
    found = repair(path, data / "nowhere", machine=MACHINE)  # neither data nor weights are needed
    assert (found.faults, found.units, found.tally.crops_forwarded) == (0, [], 0)
    assert content(path) == before


def test_a_stray_shard_and_a_lost_list_cost_no_crop(path: Path, data: Path) -> None:
    before = content(path)
    (path / "skipped.jsonl").unlink()
    (path / "shards" / f"u00000009-{'0' * 64}.h5").write_bytes(b"x")
    assert repair(path, data, machine=MACHINE).tally.crops_forwarded == 0
    assert content(path) == before
    assert verify(path).faults == ()


@pytest.mark.parametrize("kind", MANIFEST_DAMAGE)
def test_a_damaged_manifest_is_made_anew(path: Path, data: Path, kind: str) -> None:
    before = content(path)
    MANIFEST_DAMAGE[kind](path / "STORE.json")
    assert repair(path, data, machine=MACHINE).tally.crops_forwarded == 0
    assert content(path) == before
    assert verify(path).faults == ()


@pytest.mark.parametrize("settings", [{"frame_interval": 2}, {"persons": "paired"}, {"views": 2, "dtype": "float32"}])
def test_a_manifest_made_anew_is_of_the_same_selection_and_recipe(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, settings: dict[str, Any]
) -> None:
    path = tmp_path / "a.store"
    run(loaded, data, path, **settings)
    before = content(path)
    (path / "STORE.json").write_text("{")
    DAMAGE["flipped"](shard_path_of(path, 0))
    found = repair(path, data, machine=MACHINE)
    assert content(path) == before
    assert len(found.units) == 1
    assert found.differing == []


def shard_path_of(path: Path, number: int) -> Path:
    """A shard of a store whose STORE.json cannot be read."""
    return next((path / "shards").glob(f"u{number:08d}-*"))


def test_a_manifest_is_not_made_anew_from_other_data_or_weights(path: Path, data: Path, tmp_path: Path) -> None:
    (path / "STORE.json").write_text("{")
    before = content(path)
    other = copy_of(data, tmp_path / "other")
    write_labels(other, "cafe", edit_labels(other, "cafe") | {"000009.jpg": []})
    with pytest.raises(MismatchError, match="not made from the data"):
        repair(path, other, machine=MACHINE)
    state = load_backbone("resnet18", "random").backbone.resnet.state_dict()
    torch.save(state | {"conv1.weight": state["conv1.weight"] + 1}, tmp_path / "other.pth")
    with pytest.raises(MismatchError, match="weights_sha256"):
        repair(path, data, str(tmp_path / "other.pth"), MACHINE)
    assert content(path) == before
    for file in (path / "shards").iterdir():
        file.write_bytes(b"x")
    with pytest.raises(IntegrityError, match="do not say what it was"):
        repair(path, data, machine=MACHINE)
    with pytest.raises(StoreError, match="no feature store"):
        repair(data, data, machine=MACHINE)


def test_other_data_and_other_weights_are_refused(path: Path, data: Path, tmp_path: Path) -> None:
    DAMAGE["flipped"](shard_path(path, 0))
    before = content(path)
    other = copy_of(data, tmp_path / "other")
    write_labels(other, "cafe", edit_labels(other, "cafe") | {"000009.jpg": []})
    with pytest.raises(MismatchError, match="changed annotations in cafe"):
        repair(path, other, machine=MACHINE)
    state = load_backbone("resnet18", "random").backbone.resnet.state_dict()
    torch.save(state | {"conv1.weight": state["conv1.weight"] + 1}, tmp_path / "other.pth")
    with pytest.raises(MismatchError, match="weights_sha256"):
        repair(path, data, str(tmp_path / "other.pth"), MACHINE)
    assert content(path) == before


def test_weights_from_a_file_are_asked_for(path: Path, data: Path, tmp_path: Path, loaded: LoadedBackbone) -> None:
    torch.save(loaded.backbone.resnet.state_dict(), tmp_path / "mine.pth")
    mine = load_backbone("resnet18", str(tmp_path / "mine.pth"))
    run(mine, data, tmp_path / "b.store", weights=str(tmp_path / "mine.pth"))
    before = content(tmp_path / "b.store")
    DAMAGE["truncated"](shard_path(tmp_path / "b.store", 0))
    with pytest.raises(WeightsError, match=r"mine\.pth"):
        repair(tmp_path / "b.store", data, machine=MACHINE)
    repair(tmp_path / "b.store", data, str(tmp_path / "mine.pth"), MACHINE)
    assert content(tmp_path / "b.store") == before


def test_an_image_that_was_damaged_since_is_refused(path: Path, data: Path, tmp_path: Path) -> None:
    other = copy_of(data, tmp_path / "other")
    image = other / IMAGES / "cafe" / "000000.jpg"
    image.write_bytes(b"\0" * image.stat().st_size)
    DAMAGE["missing"](shard_path(path, 0))
    with pytest.raises(MismatchError, match=r"stored_frames 2, and 1 now"):
        repair(path, other, machine=MACHINE)


def test_what_is_no_finished_folder_is_refused(path: Path, data: Path, tmp_path: Path) -> None:
    pack_store(path, tmp_path / "a.h5")
    with pytest.raises(StoreError, match="packed file"):
        repair(tmp_path / "a.h5", data, machine=MACHINE)
    manifest = read_manifest(path)
    write_manifest(path, type(manifest)(**vars(manifest) | {"state": "building"}))
    with pytest.raises(IncompleteError):
        repair(path, data, machine=MACHINE)


def test_the_command(path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    DAMAGE["flipped"](shard_path(path, 0))
    arguments = ["store", "repair", str(path), "--data_path", str(data), "--device", "cpu", "--num_workers", "0"]
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--json"])
    assert not stop.value.code
    assert json.loads(capsys.readouterr().out)["units"] == [0]


def test_retrying_computes_the_units_with_unusable_images_alone(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, path: Path
) -> None:
    data = copy_of(data, tmp_path / "data")
    image = data / IMAGES / "hall" / "000003.jpg"
    good = image.read_bytes()
    image.write_bytes(b"\0" * len(good))  # as a failing disk would give it, and later not
    run(loaded, data, tmp_path / "b.store", max_skipped=0.5)
    lines = (tmp_path / "b.store" / "skipped.jsonl").read_text().splitlines()
    assert {json.loads(line)["reason"] for line in lines} == {"image_format"}
    assert store_info(tmp_path / "b.store")["skipped"] == {"image_format": len(lines)}
    image.write_bytes(good)
    assert run(loaded, data, tmp_path / "b.store", max_skipped=0.5).tally.frames_decoded == 0
    summary = run(loaded, data, tmp_path / "b.store", retry_skipped=True)
    assert 0 < summary.tally.frames_decoded < 4
    assert content(tmp_path / "b.store") == content(path)
    assert (tmp_path / "b.store" / "skipped.jsonl").read_text() == ""
    again = run(loaded, data, tmp_path / "b.store", retry_skipped=True)
    assert again.tally.frames_decoded == 0


@pytest.mark.parametrize(("box", "reason"), [((5, 5, 0, 9), "box_zero_area"), ((5, 500, 9, 9), "box_outside")])
def test_unusable_annotations_stop_the_job_where_asked(
    tmp_path: Path, loaded: LoadedBackbone, box: tuple[int, ...], reason: str
) -> None:
    write_scene(tmp_path / "data", "cafe", {"1.jpg": [person(1), person(2, box)]})
    with pytest.raises(DataError, match=rf"cafe 1\.jpg person 2 cannot be used \({reason}\).*--on_error skip"):
        run(loaded, tmp_path / "data", tmp_path / "a.store", on_error="fail", max_skipped=1.0)
    config = ExtractionConfig(
        data_path=str(tmp_path / "data"), store=str(tmp_path / "a.store"), max_skipped=1.0, crop_size=32,
        num_workers=0, weights="random", device="cpu",
    )  # fmt: skip
    assert extract_with(config, loaded).to_dict()["skipped"] == {reason: 1}
