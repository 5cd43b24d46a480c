"""End-to-end training on stored crops: same results as from images, and refused if the store does not fit."""

import shutil
from pathlib import Path

import pytest

from classify.data.inputs import check_scene_copies, find_or_extract
from configs.errors import SplitError
from configs.resnet_stage2_config import ResNetStage2Config
from configs.splits import JRDB_SPLIT, SceneSplit
from configs.train_options import TrainOptions
from extract.annotations.jrdb import IMAGES, LABELS
from extract.backbones.weights import load_backbone
from store.format.manifest import SceneDigest
from tests.jobs import run_cli
from tests.jrdb_folder import write_folder

SCENES = (JRDB_SPLIT.train[0], JRDB_SPLIT.val[0], JRDB_SPLIT.test[0])
MACHINE = ("--device", "cpu", "--num_workers", "0")
RECIPE = ("--data_path", "data", "--weights", "random", "--crop_size", "32", *MACHINE)
TRAIN = ("train", *RECIPE, "--epochs", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with "data", its store "a.store", and "third.store" of the persons in pairs in every third frame."""
    path = tmp_path_factory.mktemp("stored")
    write_folder(path / "data", SCENES, frames=6, people=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        assert run_cli("extract", *RECIPE, "--crops", "--store", "a.store") == 0
        third = ("--frame_interval", "3", "--persons", "paired", "--store", "third.store")
        assert run_cli("extract", *RECIPE, "--crops", *third) == 0
    return path


@pytest.fixture(autouse=True)
def working_directory(folder: Path, monkeypatch: pytest.MonkeyPatch, quick_baselines: None) -> None:
    monkeypatch.chdir(folder)


@pytest.mark.parametrize(
    ("interval", "stores"), [("1", ["a.store", "a.store/crops"]), ("2", ["a.store"]), ("3", ["a.store", "third.store"])]
)
def test_metrics_equal_those_from_images(tmp_path: Path, interval: str, stores: list[str]) -> None:
    """Includes stores with more people or frames than the run needs."""
    arguments = (*TRAIN, "--frame_interval", interval, "--checkpoint_dir")
    assert run_cli(*arguments, str(tmp_path / "images")) == 0
    expected = (tmp_path / "images" / "metrics.jsonl").read_bytes()
    for number, store in enumerate(stores):
        out = tmp_path / str(number)
        assert run_cli(*arguments, str(out), "--store", store) == 0
        assert (out / "metrics.jsonl").read_bytes() == expected != b""


def test_a_store_with_too_few_frames_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for interval in ("1", "2"):
        arguments = (*TRAIN, "--frame_interval", interval, "--store", "third.store")
        assert run_cli(*arguments, "--checkpoint_dir", str(tmp_path / "run")) == 4
        assert (
            f"third.store has frame_interval 3, which lacks frames of frame_interval {interval};"
            in capsys.readouterr().err
        )
    assert not (tmp_path / "run").exists()


def test_a_store_of_different_data_is_refused_if_the_data_is_present(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_folder(tmp_path / "data", SCENES, frames=6, people=5, seed=1)
    arguments = (*TRAIN, "--data_path", str(data), "--store", "a.store")
    assert run_cli(*arguments, "--checkpoint_dir", str(tmp_path / "run")) == 4
    assert f"a.store was extracted from different data: changed annotations in {SCENES[0]}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    (data / IMAGES).rename(tmp_path / "elsewhere")
    assert run_cli(*arguments, "--checkpoint_dir", str(tmp_path / "run")) == 0
    assert f"No data under {data}" in capsys.readouterr().out


def test_a_store_that_was_not_extracted_took_no_time() -> None:
    config = ResNetStage2Config(data_path="nowhere", freeze_backbone=True, crop_size=32, weights="random", device="cpu")
    loaded = load_backbone("resnet18", "random")
    assert find_or_extract(config, TrainOptions(store="a.store"), loaded) == (Path("a.store"), 0.0)


def test_a_store_of_crops_is_not_a_feature_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (*TRAIN, "--freeze_backbone", "--store", "a.store/crops")
    assert run_cli(*arguments, "--checkpoint_dir", str(tmp_path / "run")) == 4
    assert "a.store/crops has crops but no features" in capsys.readouterr().err


@pytest.mark.parametrize("mode", [("--freeze_backbone",), (), ("--store", "c.store")])
def test_r19_a_copy_of_a_scene_in_another_part_of_the_split_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mode: tuple[str, ...]
) -> None:
    data = write_folder(tmp_path / "data", SCENES, frames=6, people=5)
    original, copy = SCENES[0], SCENES[2]
    for folder, name in ((data / LABELS, f"{copy}.json"), (data / IMAGES, copy)):
        source = folder / name.replace(copy, original)
        if source.is_dir():
            shutil.rmtree(folder / name)
            shutil.copytree(source, folder / name)
        else:
            shutil.copyfile(source, folder / name)
    monkeypatch.chdir(tmp_path)
    if "--store" in mode:
        assert run_cli("extract", *RECIPE, "--crops", "--store", "c.store") == 0
    assert run_cli(*TRAIN, *mode, "--checkpoint_dir", "run") == 1
    expected = f"the split leaks: '{original}' in train and '{copy}' in test have the same annotations and images"
    assert expected in capsys.readouterr().err
    assert not Path("run").exists()


def test_r19_copies_in_one_part_and_scenes_with_the_same_annotations_only_are_accepted() -> None:
    scenes = {
        "a": SceneDigest("l", "i"),
        "b": SceneDigest("l", "i"),
        "c": SceneDigest("l", "other"),
        "d": SceneDigest("x", "i"),
    }
    check_scene_copies(SceneSplit(("a", "b"), ("c", "not in the data"), ("d",)), scenes)
    with pytest.raises(SplitError, match="'b' in val and 'a' in test"):
        check_scene_copies(SceneSplit(("c",), ("b",), ("a",)), scenes)
