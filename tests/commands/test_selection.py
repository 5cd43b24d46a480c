"""A store must have the frames of the run that uses it: training and evaluation compare the frame intervals."""

import json
from pathlib import Path

import pytest

from configs.splits import JRDB_SPLIT
from extract.annotations.jrdb import IMAGES
from tests.jobs import run_cli
from tests.jrdb_folder import write_folder, write_image

SCENES = (JRDB_SPLIT.train[0], JRDB_SPLIT.val[0], JRDB_SPLIT.test[0])
MACHINE = ("--device", "cpu", "--num_workers", "0")
RECIPE = ("--weights", "random", "--crop_size", "32", *MACHINE)
TRAIN = ("train", *RECIPE, "--epochs", "1", "--visual_dim", "8", "--freeze_backbone")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with "data", "every.store" of every frame, and "third.store" of every third frame."""
    path = tmp_path_factory.mktemp("selection")
    write_folder(path / "data", SCENES, frames=12, people=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        assert run_cli("extract", "--data_path", "data", *RECIPE, "--store", "every.store") == 0
        third = ("--frame_interval", "3", "--store", "third.store")
        assert run_cli("extract", "--data_path", "data", *RECIPE, *third) == 0
    return path


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, quick_baselines: None) -> None:
    monkeypatch.chdir(folder)


@pytest.mark.parametrize("data", ["data", "nowhere"])
def test_r1_training_is_refused_on_a_store_that_lacks_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: str
) -> None:
    for interval in ("1", "2"):
        options = ("--data_path", data, "--frame_interval", interval, "--checkpoint_dir", tmp_path / "run")
        assert run_cli(*TRAIN, "--store", "third.store", *options) == 4
        error = capsys.readouterr().err
        assert f"third.store has frame_interval 3, which lacks frames of frame_interval {interval};" in error
        assert "(a multiple of 3), or leave out --store" in error
        assert ("stage2 extract --data_path data --store third.store --weights random" in error) == (data == "data")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("data", ["data", "nowhere"])
def test_r1_a_store_with_more_frames_is_used(tmp_path: Path, data: str) -> None:
    pairs = []
    for store in ("every.store", "third.store"):
        options = ("--data_path", data, "--frame_interval", "3", "--checkpoint_dir", tmp_path / store)
        assert run_cli(*TRAIN, "--store", store, *options) == 0
        pairs.append(json.loads((tmp_path / store / "final_results.json").read_text())["pairs_per_class"])
    assert pairs[0] == pairs[1]


def test_r1_the_command_in_the_message_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "data", SCENES, frames=6, people=10)
    monkeypatch.chdir(tmp_path)
    assert run_cli("extract", "--data_path", "data", *RECIPE, "--frame_interval", "2", "--store", "a.store") == 0
    options = ("--data_path", "data", "--store", "a.store", "--checkpoint_dir", "run")
    assert run_cli(*TRAIN, *options) == 4
    command = capsys.readouterr().err.split("`stage2 ")[1].split("`")[0]
    assert run_cli(*command.split(), *MACHINE) == 0
    assert run_cli(*TRAIN, *options) == 0
    write_image(tmp_path / "data", SCENES[0], "000001.jpg", seed=77)
    assert (tmp_path / "data" / IMAGES).is_dir()
    capsys.readouterr()
    assert run_cli(*TRAIN, *options, "--overwrite") == 4
    error = capsys.readouterr().err
    assert f"a.store differs from this extraction: changed images in {SCENES[0]}; run `stage2 extract" in error
    assert run_cli(*error.split("`stage2 ")[1].split("`")[0].split(), *MACHINE) == 0
    assert run_cli(*TRAIN, *options, "--overwrite") == 0


def test_r2_evaluation_is_refused_on_a_store_that_lacks_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert run_cli(*TRAIN, "--data_path", "data", "--store", "every.store", "--checkpoint_dir", run) == 0
    capsys.readouterr()
    assert run_cli("evaluate", run, "--store", "third.store", "--device", "cpu") == 4
    error = capsys.readouterr().err
    assert "third.store has frame_interval 3" in error
    assert "was trained with frame_interval 1" in error


def test_r2_a_store_with_more_frames_evaluates_the_frames_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    options = ("--data_path", "data", "--frame_interval", "3", "--store", "third.store", "--checkpoint_dir", run)
    assert run_cli(*TRAIN, *options) == 0
    expected = json.loads((run / "final_results.json").read_text())["test_confusion_matrix"]
    for source in (("--store", "every.store"), ("--store", "third.store"), ("--data_path", "data")):
        capsys.readouterr()
        assert run_cli("evaluate", run, *source, "--device", "cpu", "--json") == 0
        assert json.loads(capsys.readouterr().out)["confusion_matrix"] == expected
