"""A store of format 1 is read as it is, and converted by `store repair` without forwarding a crop.

format_1.zip contains a data set (with one file that is not an image) and its store with crops, made by version 1 of
the format with HoG features.
"""

import json
import shutil
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest

from configs.errors import IntegrityError, MismatchError
from extract.annotations.jrdb import IMAGES, LABELS
from extract.backbones.weights import load_backbone
from extract.repair import RepairSummary
from extract.verify_data import verify
from store.crops import open_crops
from store.open import read_manifest
from store.pack import pack_store
from store.reader import load_store, store_info
from tests.jobs import extract_store, repair_store, run_cli
from tests.stores import flip_bit, shard_path

ZIP = Path(__file__).parents[1] / "store" / "format_1.zip"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data set; the store is next to it."""
    with ZipFile(ZIP) as archive:
        archive.extractall(tmp_path)
    return tmp_path / "data"


@pytest.fixture
def old(data: Path) -> Path:
    return data.parent / "old.store"


def files(store: Path) -> dict[str, bytes]:
    """All files of a store and of its crops, without lock and cache."""
    parts = ("STORE.json", "skipped.jsonl", "shards/*", "crops/STORE.json", "crops/skipped.jsonl", "crops/shards/*")
    return {str(path.relative_to(store)): path.read_bytes() for part in parts for path in store.glob(part)}


def extract_fresh(data: Path, store: Path, **settings: Any) -> Path:
    extract_store(load_backbone("hog", "none"), data, store, backbone="hog", crops=True, max_skipped=0.5, **settings)
    return store


def test_it_is_read_verified_and_packed(old: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(old)
    assert verify(old, data).to_dict()["sound"]
    features = load_store(old)
    assert features.visual.shape == (9, 1296)
    assert open_crops(old).rows(np.arange(9)).shape == (9, 3072)
    pack_store(old, old.parent / "old.h5")
    np.testing.assert_array_equal(load_store(old.parent / "old.h5").visual, features.visual)
    assert (store_info(old)["format"], "panorama" in store_info(old)["recipe"]) == (1, False)
    assert run_cli("store", "info", old) == 0
    assert "by name and size only" in capsys.readouterr().out
    assert files(old) == before


def test_it_is_not_extended_without_a_conversion(old: Path, data: Path) -> None:
    before = files(old)
    for update in (False, True):
        with pytest.raises(MismatchError, match=r"has format 1, .* run `stage2 store repair .*old\.store --data_path"):
            extract_fresh(data, old, update=update)
    assert files(old) == before


def test_a_repair_converts_it_to_the_bytes_of_a_new_store(old: Path, data: Path, tmp_path: Path) -> None:
    fresh = extract_fresh(data, tmp_path / "fresh.store")
    summary = repair_store(old, data)
    assert summary.crops is not None
    for converted in (summary, summary.crops):
        assert isinstance(converted, RepairSummary)
        assert (converted.converted, converted.units, converted.statistics.crops_forwarded) == (2, [], 0)
    assert files(old) == files(fresh)
    assert extract_fresh(data, old) == old  # fits now
    assert repair_store(old, data).converted == 0


def test_an_interrupted_conversion_leaves_the_old_store_and_continues(
    old: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh, manifest = extract_fresh(data, tmp_path / "fresh.store"), (old / "STORE.json").read_bytes()

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("store.writer.write_manifest", stop)
        repair_store(old, data)
    assert (old / "STORE.json").read_bytes() == manifest
    assert len(load_store(old).visual) == 9
    assert repair_store(old, data).converted == 0  # the shards were there already
    assert files(old) == files(fresh)


def test_a_damaged_unit_is_computed_again(old: Path, data: Path, tmp_path: Path) -> None:
    fresh = extract_fresh(data, tmp_path / "fresh.store")
    flip_bit(shard_path(old, 0))
    summary = repair_store(old, data)
    assert (summary.converted, summary.units, summary.statistics.crops_forwarded) == (1, [0], 6)
    assert files(old) == files(fresh)


def test_r7_a_replaced_image_of_the_same_size_is_found_and_not_converted(old: Path, data: Path) -> None:
    image = data / IMAGES / "cafe" / "000001.png"
    flip_bit(image)
    before = files(old)
    faults = verify(old, data).to_dict()["faults"]
    assert [(fault["kind"], fault["scene"], fault["frame"]) for fault in faults] == [
        ("changed_image", "cafe", "000001.png")
    ]
    with pytest.raises(MismatchError, match=r"the image of cafe 000001\.png is not the one that was extracted"):
        repair_store(old, data)
    assert files(old) == before


def test_other_annotations_are_not_converted(old: Path, data: Path) -> None:
    path = data / LABELS / "cafe.json"
    content = json.loads(path.read_text())
    content["labels"]["000000.png"][0]["box"][0] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(MismatchError, match="changed annotations in cafe"):
        repair_store(old, data)


def test_an_image_that_can_be_used_now_is_computed(old: Path, data: Path, tmp_path: Path) -> None:
    shutil.copy(data / IMAGES / "cafe" / "000000.png", data / IMAGES / "hall" / "000001.png")
    fresh = extract_fresh(data, tmp_path / "fresh.store")
    summary = repair_store(old, data)
    assert (summary.converted, summary.units, summary.statistics.crops_forwarded) == (1, [1], 6)
    assert files(old) == files(fresh)


def test_a_lost_manifest_cannot_be_rebuilt(old: Path, data: Path) -> None:
    (old / "STORE.json").unlink()
    with pytest.raises(IntegrityError, match=r"have format 1, for which STORE\.json cannot be rebuilt"):
        repair_store(old, data)


def test_a_store_of_ordinary_photos_keeps_its_wrapped_crops(old: Path, data: Path, monkeypatch: Any) -> None:
    """Format 1 treated every image as a panorama, which "auto" does only with wide ones."""
    monkeypatch.setattr("configs.panorama.MIN_ASPECT", 5)
    repair_store(old, data)
    assert read_manifest(old).recipe.panorama == "yes"
