"""A run folder is named after its run, and never replaces another run by accident."""

from pathlib import Path

import pytest

from classify.open_run import check_run_folder, open_run_folder
from classify.replacement import replace_earlier_run
from configs.errors import ConfigError, LockedError, StorageError
from configs.resnet_stage2_config import ResNetStage2Config
from configs.train_options import TrainOptions
from tests.factories import make_features, make_tables, small_config, train_head


def test_new_folders_are_named_after_the_run_and_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frozen = ResNetStage2Config(freeze_backbone=True, fusion_strategy="add", visual_feature_dim=512)
    names = []
    for config in (frozen, frozen, ResNetStage2Config()):
        with open_run_folder(config) as folder:
            names.append(folder.path.as_posix())
    assert names == [
        "checkpoints/resnet18_frozen_add_512d-001",
        "checkpoints/resnet18_frozen_add_512d-002",
        "checkpoints/resnet18_concat_256d-001",
    ]


@pytest.mark.parametrize("name", ["config.json", "best_model.pth", "last.pth", "final_results.json"])
def test_a_run_is_recognised_by_any_of_its_files(tmp_path: Path, name: str) -> None:
    config = small_config(tmp_path)
    with open_run_folder(config):
        (tmp_path / name).touch()
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ConfigError, match="--overwrite"):
        check_run_folder(config, TrainOptions())
    with pytest.raises(ConfigError, match="--overwrite"), open_run_folder(config):
        pass
    with open_run_folder(config, overwrite=True) as folder:
        replace_earlier_run(folder)
        assert folder.path == tmp_path
    assert {path.name for path in tmp_path.iterdir()} == {"mine.txt", ".stage2-run"}


@pytest.mark.parametrize("name", ["training.log", "metrics.jsonl", "curves.png", "config.json", "best_model.pth"])
def test_w3_a_users_file_with_the_name_of_a_runs_file_is_never_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    for overwrite, resume in ((False, False), (True, False), (False, True)):
        with (
            pytest.raises(ConfigError, match="not a run folder"),
            open_run_folder(small_config(tmp_path), overwrite, resume),
        ):
            pass
    assert (tmp_path / name).read_text() == "mine"


def test_w3_a_run_of_a_version_without_marker_is_recognised_by_its_checkpoint(tmp_path: Path) -> None:
    config = small_config(tmp_path / "r", epochs=1)
    train_head(make_features(make_tables()), config)
    (tmp_path / "r" / ".stage2-run").unlink()
    with open_run_folder(config, overwrite=True) as folder:
        replace_earlier_run(folder)
        assert not folder.best_model.exists()


def test_w4_a_folder_in_which_another_job_trains_is_refused(tmp_path: Path) -> None:
    config = small_config(tmp_path / "r")
    with open_run_folder(config) as folder:
        folder.last.write_bytes(b"first")
        for overwrite, resume in ((True, False), (False, True)):
            with pytest.raises(LockedError), open_run_folder(config, overwrite, resume):
                pass
        assert folder.last.read_bytes() == b"first"


def test_w8_a_run_folder_is_not_part_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    for folder in (tmp_path / "labels" / "run", tmp_path):
        with pytest.raises(ConfigError, match="input"):
            check_run_folder(small_config(folder, data_path=str(tmp_path)), TrainOptions())


def test_temporary_files_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    config = small_config(tmp_path / "r")
    with open_run_folder(config) as folder:
        folder.last.touch()
    left = tmp_path / "r" / f".last.pth.{'0' * 16}.tmp"
    left.touch()
    with open_run_folder(config, resume=True):
        assert not left.exists()


@pytest.mark.parametrize("name", ["mine.txt", ".hidden", "seed-3/config.json", ".stage2-run"])
def test_w3_a_folder_with_files_but_without_a_marker_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(ConfigError, match="not a run folder"), open_run_folder(small_config(tmp_path), **options):
            pass
        with pytest.raises(ConfigError, match="not a run folder"):
            check_run_folder(small_config(tmp_path), TrainOptions(**options))
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / name).read_text() == "mine"


def test_a_link_to_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    with open_run_folder(small_config(tmp_path / "run")) as folder:
        folder.last.touch()
    assert (tmp_path / "disk" / "last.pth").exists()


def test_a_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(StorageError, match=r"could not create the folder .*run"),
        open_run_folder(small_config(tmp_path / "file" / "run")),
    ):
        pass


@pytest.mark.parametrize("name", ["store", "start"])
def test_w8_an_input_is_not_inside_a_run_folder_that_is_replaced(tmp_path: Path, name: str) -> None:
    config = small_config(tmp_path / "r")
    options = {name: str(tmp_path / "r" / "seed-1")}
    with pytest.raises(ConfigError, match="an input, is inside the run folder"):
        check_run_folder(config, TrainOptions(**options))
    with open_run_folder(config):
        pass
    check_run_folder(config, TrainOptions(**options))
    with pytest.raises(ConfigError, match="an input, is inside the run folder"):
        check_run_folder(config, TrainOptions(overwrite=True, **options))
    with pytest.raises(ConfigError, match="an input, is inside the run folder"):
        check_run_folder(small_config(tmp_path / "r", weights=str(tmp_path / "r")), TrainOptions(overwrite=True))
    inside = small_config(tmp_path / "r" / "seed-1" / "run")
    with pytest.raises(ConfigError, match="an input"):
        check_run_folder(inside, TrainOptions(**options))
