"""Training end to end on stored crops: on the very data that the command names, or not at all."""

from pathlib import Path

import pytest

import cli
from configs.splits import JRDB_SPLIT
from extract.annotations.jrdb import IMAGES
from tests.jrdb_folder import write_folder

SCENES = (JRDB_SPLIT.train[0], JRDB_SPLIT.val[0], JRDB_SPLIT.test[0])
MACHINE = ("--device", "cpu", "--num_workers", "0")
RECIPE = ("--data_path", "data", "--weights", "random", "--crop_size", "32", *MACHINE)
TRAIN = ("train", *RECIPE, "--epochs", "1")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, the store "a.store" of all its people and "third.store" of every third frame's pairs."""
    folder = tmp_path_factory.mktemp("stored")
    write_folder(folder / "data", SCENES, frames=6, people=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run("extract", *RECIPE, "--crops", "--store", "a.store") == 0
        some = ("--frame_interval", "3", "--persons", "paired", "--store", "third.store")
        assert run("extract", *RECIPE, "--crops", *some) == 0
    return folder


@pytest.fixture(autouse=True)
def in_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr("classify.evaluate.baselines.ROUNDS", 1)


@pytest.mark.parametrize(
    ("interval", "stores"), [("1", ["a.store", "a.store/crops"]), ("2", ["a.store"]), ("3", ["a.store", "third.store"])]
)
def test_the_same_figures_as_from_images(tmp_path: Path, interval: str, stores: list[str]) -> None:
    """A store of more people or frames than the run needs included."""
    every = (*TRAIN, "--frame_interval", interval, "--checkpoint_dir")
    assert run(*every, str(tmp_path / "images")) == 0
    expected = (tmp_path / "images" / "metrics.jsonl").read_bytes()
    for number, store in enumerate(stores):
        folder = tmp_path / str(number)
        assert run(*every, str(folder), "--store", store) == 0
        assert (folder / "metrics.jsonl").read_bytes() == expected != b""


def test_too_few_frames_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for interval in ("1", "2"):
        tune = (*TRAIN, "--frame_interval", interval, "--store", "third.store")
        assert run(*tune, "--checkpoint_dir", str(tmp_path / "run")) == 4
        assert f"every 3. frame, wanted is every {interval}." in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_other_data_is_refused_where_it_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_folder(tmp_path / "data", SCENES, frames=6, people=5, seed=1)
    tune = (*TRAIN, "--data_path", str(data), "--store", "a.store")
    assert run(*tune, "--checkpoint_dir", str(tmp_path / "run")) == 4
    assert f"a.store was made from other data: changed annotations in {SCENES[0]}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    (data / IMAGES).rename(tmp_path / "elsewhere")
    assert run(*tune, "--checkpoint_dir", str(tmp_path / "run")) == 0
    assert f"No data under {data}" in capsys.readouterr().out


def test_crops_are_no_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frozen = (*TRAIN, "--freeze_backbone", "--store", "a.store/crops")
    assert run(*frozen, "--checkpoint_dir", str(tmp_path / "run")) == 4
    assert "a.store/crops holds crops and no features" in capsys.readouterr().err
