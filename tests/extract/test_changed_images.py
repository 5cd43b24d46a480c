"""A store belongs to the bytes of its images: extraction, verification and repair notice a replaced image."""

import json
from pathlib import Path

import pytest

import extract.images.file_cache
import extract.images.identity
from configs.errors import MismatchError
from extract.annotations.jrdb import IMAGES, LABELS
from extract.backbones.weights import LoadedBackbone
from extract.verify_data import verify
from tests.jobs import copy_dataset, extract_store, repair_store, run_cli, store_files
from tests.jrdb_folder import read_labels, write_image, write_labels
from tests.stores import DAMAGE, flip_bit, shard_path


@pytest.fixture
def own(tmp_path: Path, data: Path) -> Path:
    """A copy of the data set."""
    return copy_dataset(data, tmp_path / "data")


@pytest.fixture
def store(tmp_path: Path, loaded: LoadedBackbone, own: Path) -> Path:
    extract_store(loaded, own, tmp_path / "a.store", crops=True)
    return tmp_path / "a.store"


def replace_image(data: Path) -> None:
    """Writes other bytes of the same number into an image that can still be decoded."""
    path = data / IMAGES / "cafe" / "000002.jpg"
    size = path.stat().st_size
    path.write_bytes((data / IMAGES / "hall" / "000002.jpg").read_bytes()[:size].ljust(size, b"\0"))


def test_r7_extraction_repair_and_verification_notice_a_replaced_image(
    store: Path, own: Path, loaded: LoadedBackbone
) -> None:
    assert verify(store, own).to_dict()["sound"]
    replace_image(own)
    before = store_files(store)
    with pytest.raises(MismatchError, match="changed images in cafe"):
        extract_store(loaded, own, store)
    DAMAGE["missing"](shard_path(store, 0))
    with pytest.raises(MismatchError, match="changed images in cafe"):
        repair_store(store, own)
    report = verify(store, own).to_dict()
    places = [(fault["kind"], fault["scene"], fault["frame"]) for fault in report["faults"]]
    assert ("changed_image", "cafe", "000002.jpg") in places
    assert ("changed_image", "cafe", "000002.jpg") in [
        (fault["kind"], fault["scene"], fault["frame"]) for fault in report["crops"]["faults"]
    ]
    assert store_files(store).items() <= before.items()


def test_r7_only_the_unit_of_the_replaced_image_is_computed_again(
    store: Path, own: Path, loaded: LoadedBackbone, tmp_path: Path
) -> None:
    replace_image(own)
    summary = extract_store(loaded, own, store, update=True, max_skipped=0.5)
    assert 0 < summary.statistics.frames_decoded <= 2
    extract_store(loaded, own, tmp_path / "fresh.store", max_skipped=0.5)
    assert store_files(store) == store_files(tmp_path / "fresh.store")


def test_the_command_names_what_has_changed(store: Path, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("store", "verify", store, "--data_path", own) == 0
    (own / LABELS / "hall.json").write_text("{}")
    flip_bit(own / IMAGES / "cafe" / "000000.jpg")
    capsys.readouterr()
    assert run_cli("store", "verify", store, "--data_path", own, "--json") == 4
    texts = " ".join(fault["message"] for fault in json.loads(capsys.readouterr().out)["faults"])
    assert "changed annotations in hall" in texts
    assert "cafe 000000.jpg: the image is not the one that was extracted" in texts


def test_a_finished_store_is_reused_without_reading_images(
    store: Path, own: Path, loaded: LoadedBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract.images.file_cache, "_RECENT", 0)
    extract_store(loaded, own, store, crops=True)  # writes a cache that has all images
    monkeypatch.setattr(extract.images.identity, "image_identity", None)
    assert extract_store(loaded, own, store, crops=True).statistics.frames_decoded == 0


def test_r7_a_wrong_cache_costs_only_time(
    store: Path, own: Path, loaded: LoadedBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract.images.file_cache, "_RECENT", 0)
    extract_store(loaded, own, store, crops=True)
    cache = store / ".images.json"
    images = json.loads(cache.read_bytes())["images"]
    wrong = {path: [*entry[:-1], "0" * 64] for path, entry in images.items()}
    cache.write_text(json.dumps({"checksum": extract.images.file_cache.digest(wrong), "images": wrong}))
    before = store_files(store)
    assert extract_store(loaded, own, store, crops=True).statistics.frames_decoded == 0
    assert store_files(store) == before


def test_images_without_annotations_do_not_matter(store: Path, own: Path, loaded: LoadedBackbone) -> None:
    write_image(own, "cafe", "000099.jpg")
    assert extract_store(loaded, own, store).statistics.frames_decoded == 0


def test_an_image_whose_name_is_written_with_escapes_matters(own: Path, loaded: LoadedBackbone, tmp_path: Path) -> None:
    write_labels(own, "attic", {"é.jpg": read_labels(own, "cafe")["000000.jpg"]})  # json.dumps writes \\u00e9
    path = write_image(own, "attic", "é.jpg")
    extract_store(loaded, own, tmp_path / "b.store", max_skipped=0.5)
    flip_bit(path)
    with pytest.raises(MismatchError, match="changed images in attic"):
        extract_store(loaded, own, tmp_path / "b.store", max_skipped=0.5)
