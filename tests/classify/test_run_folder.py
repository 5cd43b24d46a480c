"""A run folder is named after its run, and never replaces another run by accident."""

from pathlib import Path

import pytest

from classify.run_folder import check_run_folder, open_run_folder
from configs.errors import ConfigError, StorageError
from configs.resnet_stage2_config import ResNetStage2Config
from tests.factories import small_config


def test_new_folders_are_named_after_the_run_and_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frozen = ResNetStage2Config(freeze_backbone=True, fusion_strategy="add", visual_feature_dim=512)
    names = [open_run_folder(config).path.as_posix() for config in (frozen, frozen, ResNetStage2Config())]
    assert names == [
        "checkpoints/resnet18_frozen_add_512d-001",
        "checkpoints/resnet18_frozen_add_512d-002",
        "checkpoints/resnet18_concat_256d-001",
    ]


@pytest.mark.parametrize("name", ["config.json", "best_model.pth", "last.pth", "final_results.json"])
def test_a_run_is_recognised_by_any_of_its_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / "mine.txt").touch()
    config = small_config(tmp_path)
    with pytest.raises(ConfigError, match="--overwrite"):
        check_run_folder(config)
    with pytest.raises(ConfigError, match="--overwrite"):
        open_run_folder(config)
    assert open_run_folder(config, overwrite=True).path == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_folder_with_other_files_is_used(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    assert open_run_folder(small_config(tmp_path)).path == tmp_path


def test_a_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="--checkpoint_dir"):
        open_run_folder(small_config(tmp_path / "file" / "run"))
