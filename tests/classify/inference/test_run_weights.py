"""The weights file that a cached run's configuration names: opened as a regular file, used only with its sha256."""

import os
from pathlib import Path

import pytest
import torch
from torch import nn

from classify.inference.finished_run import load_run_backbone
from classify.model.checkpoint import CACHED, Checkpoint, RunInfo
from classify.model.head import Stage2Model, build_head
from configs.errors import MismatchError, WeightsError
from extract.backbones.resnet import Backbone
from extract.backbones.weights import load_backbone, load_resnet
from extract.recipe import feature_recipe
from tests.factories import small_config


def write_weights(path: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    state = load_resnet("resnet18", "random", freeze=True).resnet.state_dict()
    torch.save(state | {"conv1.weight": torch.rand_like(state["conv1.weight"])}, path)
    return path


def checkpoint_of(weights: Path) -> Checkpoint:
    """Of a run that was trained on features of the backbone in file `weights`."""
    config = small_config(backbone_name="resnet18", weights=str(weights), freeze_backbone=True, crop_size=32)
    identity = feature_recipe(load_backbone("resnet18", str(weights)), 32, "float32", 1, "float32").identity()
    info = RunInfo(CACHED, config, 512, identity, "f", (1.0, 1.0, 1.0))
    return Checkpoint(info, dict(Stage2Model(nn.Identity(), build_head(config, 512)).state_dict()), 1, {}, {})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "a.pth", 1)


def test_h3_the_recorded_weights_are_used_with_their_sha256_only(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(weights.read_bytes())
    checkpoint = checkpoint_of(path)
    assert isinstance(load_run_backbone(tmp_path, checkpoint).backbone, Backbone)
    write_weights(path, 2)
    with pytest.raises(MismatchError, match="weights_sha256"):
        load_run_backbone(tmp_path, checkpoint)
    assert isinstance(load_run_backbone(tmp_path, checkpoint, str(weights)).backbone, Backbone)


@pytest.mark.timeout(60)
def test_h3_other_recorded_paths_are_refused_with_the_sha256_that_is_needed(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(weights.read_bytes())
    checkpoint = checkpoint_of(path)
    wanted = checkpoint.info.backbone["weights_sha256"]
    path.unlink()
    with pytest.raises(WeightsError, match=rf"sha256 {wanted} with --weights"):
        load_run_backbone(tmp_path, checkpoint)
    path.write_text("root:x:0:0:secret")
    with pytest.raises(WeightsError, match=wanted) as caught:
        load_run_backbone(tmp_path, checkpoint)
    assert "secret" not in str(caught.value)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(WeightsError, match=wanted):
        load_run_backbone(tmp_path, checkpoint)
