"""Options are made from config fields; typed options override the settings file, which overrides the preset."""

import os
from pathlib import Path
from typing import Any

import click
import pytest

from classify.commands import training
from configs import options
from configs.errors import ConfigError
from configs.resnet_stage2_config import ResNetStage2Config
from configs.settings import declared
from configs.train_options import TrainOptions


def config_of(arguments: list[str], settings: dict[str, Any] | None = None) -> ResNetStage2Config:
    """The run of `stage2 finetune ARGUMENTS`, which has an option for every field that has one."""

    @click.command()
    @training.finetune_options
    @click.pass_context
    def command(context: click.Context, /, **_: Any) -> ResNetStage2Config:
        return options.run_config(context, settings or {})

    config = command.main(arguments, standalone_mode=False)
    assert isinstance(config, ResNetStage2Config)
    return config


def test_each_option_sets_its_field() -> None:
    assert config_of([]) == ResNetStage2Config()
    assert config_of(["--backbone", "resnet34", "--visual_dim", "8", "--fusion", "add", "--lr", "1"]) == (
        ResNetStage2Config(backbone_name="resnet34", visual_feature_dim=8, fusion_strategy="add", learning_rate=1.0)
    )
    assert config_of(["--freeze_backbone", "--no_geometric"]) == ResNetStage2Config(
        freeze_backbone=True, use_geometric=False
    )


def test_a_default_that_is_typed_overrides_settings(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("epochs = 3\nbatch_size = 4\nuse_scene_context = true\n")
    preset = {"epochs": 2, "seed": 1, "use_scene_context": False}
    config = config_of(["--config", str(path), "--batch_size", "16"], preset)
    assert (config.epochs, config.batch_size, config.seed, config.use_scene_context) == (3, 16, 1, True)


def test_every_train_option_is_on_the_command_line() -> None:
    @click.command()
    @training.finetune_options
    def command(**_: Any) -> None: ...

    of_compare = {"update"}  # only `stage2 compare` sets it
    assert set(declared(TrainOptions)) - of_compare <= {parameter.name for parameter in command.params}


@pytest.mark.parametrize("content", [b"a = ", b"\xff\xfe", b"a = 1\na = 2", b"\x00", b"a = " + b"[" * 5000])
def test_a_broken_settings_file_is_a_configuration_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"run\.toml is not valid TOML"):
        options.read_toml(path)


def test_a_missing_settings_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        options.read_toml(tmp_path / "none.toml")


def test_an_unknown_setting_is_refused_with_the_file_and_a_suggestion(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("batchsize = 3\n")
    with pytest.raises(ConfigError, match=r"run\.toml has an unknown setting 'batchsize'; did you mean 'batch_size'"):
        options.read_toml(path)


@pytest.mark.timeout(20)
def test_h4_a_fifo_as_settings_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.toml")
    with pytest.raises(ConfigError, match=r"run\.toml cannot be read \(it is not a regular file\)"):
        options.read_toml(tmp_path / "run.toml")
