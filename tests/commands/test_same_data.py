"""Cached and end-to-end training use the same frames, persons and pairs, and report what they leave out alike."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import extract.images.file_cache
from configs.splits import JRDB_SPLIT
from extract.annotations.jrdb import IMAGES
from tests.jobs import run_cli
from tests.jrdb_folder import person, read_labels, write_folder, write_labels

TRAIN, VAL, TEST = JRDB_SPLIT.train[0], JRDB_SPLIT.val[0], JRDB_SPLIT.test[0]
MACHINE = ("--device", "cpu", "--num_workers", "0")
RECIPE = ("--data_path", "data", "--weights", "random", "--crop_size", "32", *MACHINE, "--max_skipped", "0.9")
RUN = ("train", *RECIPE, "--epochs", "1", "--visual_dim", "8", "--checkpoint_dir")


def fill_middle(path: Path) -> None:
    """Damages a JPEG in its middle so that its decoder notices."""
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle])


DAMAGE: dict[str, Callable[[Path], object]] = {  # frame -> damage of its image in the scene of the training split
    "000001.jpg": Path.unlink,
    "000002.jpg": lambda path: path.write_bytes(path.read_bytes()[:-300]),
    "000003.jpg": fill_middle,
    "000004.jpg": lambda path: path.write_bytes(b""),
    "000005.jpg": lambda path: path.write_text("<html>"),
    "000006.jpg": lambda path: (path.unlink(), os.mkfifo(path)),
    "000007.jpg": lambda path: Image.new("I;16", (256, 64)).save(path, "png"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with "data", in which images and annotations are damaged in many ways."""
    path = tmp_path_factory.mktemp("same")
    data = write_folder(path / "data", (TRAIN, VAL, TEST), frames=12, people=6)
    for frame, damage in DAMAGE.items():
        damage(data / IMAGES / TRAIN / frame)
    (data / IMAGES / TEST / "000003.jpg").write_bytes(b"\xff\xd8\xff")
    frames = read_labels(data, TRAIN)
    frames["000008.jpg"] += [person(50, (5, 500, 9, 9), {0: ["walking together"]}), {"label_id": "pedestrian-3"}]
    frames["000009.jpg"] += [person(60, (50, 5, 9, 9), {99: ["walking together"]}), person(61, (5, 5, 0, 9))]
    write_labels(data, TRAIN, frames)
    return path


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, quick_baselines: None) -> None:
    monkeypatch.chdir(folder)


def results(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "final_results.json").read_text()))


def test_r3_r4_both_modes_use_the_same_data_and_report_the_same_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for name, options in {"cached": ("--freeze_backbone", "--store", "a.store"), "images": ()}.items():
        assert run_cli(*RUN, tmp_path / name, *options) == 3
        printed = capsys.readouterr().out
        assert "Finished, but " in printed.splitlines()[-1]
        assert "image_damaged" in (tmp_path / name / "training.log").read_text()
        found.append(results(tmp_path / name))
    cached, images = found
    assert images["pairs_per_class"] == cached["pairs_per_class"]
    assert images["class_table"] == cached["class_table"]
    for key in ("planned", "used", "skipped", "damaged"):
        assert images["data"][key] == cached["data"][key]
    ledger = images["data"]
    assert set(ledger["skipped"]["frames"]) == {
        "image_missing", "image_damaged", "image_empty", "image_format", "image_not_a_file",
    }  # fmt: skip
    assert ledger["skipped"]["persons"].keys() >= {"box_outside", "box_zero_area", "bad_id"}
    assert ledger["skipped"]["pairs"].keys() >= {"missing_partner", "partner_skipped"}
    for kind, planned in ledger["planned"].items():
        assert planned == ledger["used"][kind] + sum(ledger["skipped"][kind].values())
    total = sum(sum(counts.values()) for counts in ledger["skipped"].values())
    assert ledger["damaged"] == total - 1  # the absent partner
    for source in (("--store", "a.store"), ("--data_path", "data")):
        assert (
            run_cli("evaluate", tmp_path / "cached", *source, "--device", "cpu", "--max_skipped", "0.9", "--json") == 3
        )
        found.append(json.loads(capsys.readouterr().out))
    assert found[2]["confusion_matrix"] == found[3]["confusion_matrix"] == cached["test_confusion_matrix"]
    assert found[2]["data"]["skipped"] == found[3]["data"]["skipped"]
    assert found[3]["data"]["planned"]["frames"] == 12  # of the test split's scene alone


@pytest.mark.parametrize("mode", [("--freeze_backbone",), ()])
def test_r3_the_limit_holds_in_both_modes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: tuple[str, ...]
) -> None:
    if mode:
        assert run_cli("extract", *RECIPE, "--store", "limit.store") == 3
        mode = (*mode, "--store", "limit.store")
    assert run_cli(*RUN, tmp_path / "run", *mode, "--max_skipped", "0.01") == 1
    error = capsys.readouterr().err
    assert "8 of 36 planned frames cannot be used (image_" in error or "2 of 36 planned frames" in error
    assert "more than --max_skipped 0.01 allows; first image_" in error
    assert TRAIN in error
    assert not (tmp_path / "run").exists()


def test_p12_the_log_says_how_many_images_are_decoded_and_unchanged_ones_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extract.images.file_cache, "_RECENT", 0)
    assert run_cli(*RUN, tmp_path / "run") == 3
    assert "Images: 36 of 36 are decoded once" in capsys.readouterr().out
    assert run_cli(*RUN, tmp_path / "run", "--overwrite") == 3
    damaged = 8  # they are looked at again
    assert f"Images: {damaged} of 36 are decoded once, to find damaged ones; 28 are" in capsys.readouterr().out


def test_a_comparison_ends_as_its_runs_do_and_the_report_says_what_was_skipped(tmp_path: Path) -> None:
    size = ("--crop_size", "32", "--device", "cpu", "--num_workers", "0", "--epochs", "1")
    command = ("compare", "--data_path", "data", "--out", tmp_path / "c", "--backbones", "hog", *size)
    assert run_cli(*command, "--modes", "cached", "--max_skipped", "0.9") == 3
    run = tmp_path / "c" / "hog_cached"
    assert run_cli("report", run) == 0
    page, data = (run / "report.html").read_text(), results(run)["data"]
    assert "skipped: image_missing" in page and "skipped: missing_partner" in page
    for kind in ("frames", "persons", "pairs"):
        assert f'<td class="n">{data["planned"][kind]:,}</td>' in page


def test_an_absent_partner_alone_does_not_cause_exit_code_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_folder(tmp_path / "data", (TRAIN, VAL, TEST), frames=4, people=10)
    frames = read_labels(data, TRAIN)
    frames["000001.jpg"].append(person(60, (50, 5, 9, 9), {99: ["walking together"]}))
    write_labels(data, TRAIN, frames)
    monkeypatch.chdir(tmp_path)
    assert run_cli("extract", *RECIPE, "--store", "a.store") == 0
    for name, mode in {"cached": ("--freeze_backbone", "--store", "a.store"), "images": ()}.items():
        assert run_cli(*RUN, tmp_path / name, *mode) == 0
        ledger = results(tmp_path / name)["data"]
        assert (ledger["skipped"]["pairs"], ledger["damaged"]) == ({"missing_partner": 1}, 0)
