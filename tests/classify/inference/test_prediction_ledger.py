"""`predict` counts what it skips as extraction does: planned = used + skipped, the limit, and exit code 3."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from classify.inference.predict import PredictOptions, predict
from configs.errors import TooManySkippedError
from extract.annotations.jrdb import IMAGES
from extract.dataset import read_dataset
from store.format.manifest import Selection
from tests.factories import make_random_run
from tests.jobs import run_cli
from tests.jrdb_folder import person, read_labels, write_folder, write_labels

KINDS = ("frames", "persons", "pairs")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random_run(tmp_path_factory.mktemp("run"))[0]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Ten frames of three people in two pairs; every one is sound."""
    people = [person(1, mentions={2: ["walking together"]}), person(2, (60, 10, 12, 30)), person(3, (90, 10, 12, 30))]
    people[2] = person(3, (90, 10, 12, 30), {2: ["standing together"]})
    root = write_folder(tmp_path / "data", ("cafe", "hall"), frames=5)
    for scene in ("cafe", "hall"):
        write_labels(root, scene, dict.fromkeys(read_labels(root, scene), people))
    return root


def change(data: Path, frame: str, people: Any) -> None:
    write_labels(data, "hall", {**read_labels(data, "hall"), frame: people})


def remove_images(data: Path, count: int = 10**6) -> None:
    for path in sorted((data / IMAGES).rglob("*.jpg"))[:count]:
        path.unlink()


def truncate_images(data: Path, count: int) -> None:
    for path in sorted((data / IMAGES).rglob("*.jpg"))[:count]:
        path.write_bytes(path.read_bytes()[:-200])


def predicted(run: Path, data: Path, **options: Any) -> dict[str, Any]:
    """The ledger, after checking that it and the counts agree with the written file."""
    out = data.parent / "out.json"
    result = predict(run, data, out, PredictOptions(device="cpu", max_skipped=1.0, overwrite=True, **options))
    ledger = result["data"]
    assert all(
        ledger["planned"][kind] == ledger["used"][kind] + sum(ledger["skipped"][kind].values()) for kind in KINDS
    )
    frames = [people for scene in json.loads(out.read_text())["scenes"].values() for people in scene["labels"].values()]
    people = [one for listed in frames for one in listed]
    written = {"frames": len(frames), "persons": len(people), "pairs": sum(len(p["H-interaction"]) for p in people)}
    assert ledger["used"] == written == {kind: result[kind] for kind in KINDS}
    return dict(ledger)


def test_r5_every_skipped_item_is_counted_with_its_reason_and_first_example(run: Path, data: Path) -> None:
    truncate_images(data, 1)
    change(data, "000001.jpg", [person(1, [0, 0, 0, 5]), person(2, mentions={1: ["conversation"]}), person(3)])
    change(data, "000002.jpg", 7)
    ledger = predicted(run, data)
    assert ledger["planned"] == {"frames": 10, "persons": 8 * 3 + 3, "pairs": 8 * 2 + 1}
    assert ledger["skipped"] == {
        "frames": {"frame_format": 1, "image_damaged": 1},
        "persons": {"box_zero_area": 1, "image_damaged": 3},
        "pairs": {"partner_skipped": 1, "image_damaged": 2},
    }
    assert ledger["damaged"] == 9
    example = ledger["examples"]["box_zero_area"]
    assert (example["scene"], example["frame"], example["item"]) == ("hall", "000001.jpg", "1")


def test_r5_the_ledger_is_that_of_training_on_the_same_data(run: Path, data: Path) -> None:
    remove_images(data, 3)
    change(data, "000001.jpg", [person(1, [0, 0, 0, 5]), person(2, mentions={1: ["conversation"]}), person(3)])
    trained = read_dataset(data, Selection(1, "all"), 1.0).ledger.to_dict()
    ledger = predicted(run, data)
    assert {key: ledger[key] for key in ("planned", "used", "skipped")} == {
        key: trained[key] for key in ("planned", "used", "skipped")
    }


@pytest.mark.parametrize(("pairing", "pairs"), [("near", None), ("all", 9 * 3)])
def test_r5_other_pairs_are_those_of_the_used_people(run: Path, data: Path, pairing: str, pairs: int | None) -> None:
    remove_images(data, 1)
    change(data, "000001.jpg", [{**one, "H-interaction": [7]} for one in read_labels(data, "hall")["000001.jpg"]])
    ledger = predicted(run, data, pairing=pairing)
    assert ledger["skipped"] == {"frames": {"image_missing": 1}, "persons": {"image_missing": 3}, "pairs": {}}
    assert set(ledger["examples"]) == {"image_missing"}
    assert pairs is None or ledger["planned"]["pairs"] == pairs


@pytest.mark.parametrize("damage", [remove_images, truncate_images])
def test_r5_the_job_stops_at_the_limit(run: Path, data: Path, damage: Any) -> None:
    damage(data, 2)
    with pytest.raises(TooManySkippedError, match=r"2 of 10 planned frames .* --max_skipped 0.1 allows; first image_"):
        predict(run, data, data.parent / "out.json", PredictOptions(device="cpu", max_skipped=0.1))
    assert not (data.parent / "out.json").exists()
    predict(run, data, data.parent / "out.json", PredictOptions(device="cpu", max_skipped=0.2))


def test_r5_missing_images_stop_the_job_before_anything_is_drawn(run: Path, data: Path) -> None:
    for path in (data / IMAGES / "hall").iterdir():  # the last scene
        path.unlink()
    options = PredictOptions(device="cpu", draw=data.parent / "pictures")
    with pytest.raises(TooManySkippedError, match="5 of 10 planned frames"):
        predict(run, data, data.parent / "out.json", options)
    assert not (data.parent / "pictures").exists()


def test_r5_items_are_counted_once_when_the_file_is_written_twice(
    run: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, failed = os.fsync, []

    def fail_once(descriptor: int) -> None:
        if not failed:
            failed.append(descriptor)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_once)
    assert predicted(run, data)["planned"] == {"frames": 10, "persons": 30, "pairs": 20}
    assert failed


def exit_code(run: Path, data: Path, *options: str) -> int:
    return run_cli("predict", run, "--data_path", data, "--out", data.parent / "out.json", "--device", "cpu", *options)


def test_r5_damage_is_exit_code_3_also_with_json(run: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(run, data) == 0
    truncate_images(data, 1)
    assert exit_code(run, data, "--overwrite") == 1
    assert exit_code(run, data, "--overwrite", "--max_skipped", "0.2") == 3
    capsys.readouterr()
    assert exit_code(run, data, "--overwrite", "--max_skipped", "0.2", "--json") == 3
    assert json.loads(capsys.readouterr().out)["data"]["damaged"] == 6


def test_r5_no_image_at_all_is_an_error(run: Path, data: Path) -> None:
    remove_images(data)
    assert exit_code(run, data) == 1
    assert not (data.parent / "out.json").exists()
    assert exit_code(run, data, "--max_skipped", "1") == 3


def test_r5_pairs_without_an_annotated_partner_are_not_damage(
    run: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in read_labels(data, "hall"):
        change(data, name, [person(1, mentions={9: ["conversation"]}), person(2)])
    assert exit_code(run, data, "--json") == 0
    ledger = json.loads(capsys.readouterr().out)["data"]
    assert (ledger["skipped"]["pairs"], ledger["damaged"]) == ({"missing_partner": 5}, 0)
