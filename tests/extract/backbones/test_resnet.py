"""The backbone equals torchvision's ResNet up to its pooling layer, and a frozen one cannot change."""

import pytest
import torch
from torch import Tensor, nn

from extract.backbones.resnet import Backbone
from extract.backbones.weights import load_backbone, load_resnet
from tests.resnets import crops, torchvision_features, with_random_batchnorm

NAMES = {"resnet18": 512, "resnet34": 512, "resnet50": 2048}


@pytest.mark.parametrize("name", NAMES)
def test_features_equal_torchvisions(name: str) -> None:
    backbone = with_random_batchnorm(load_backbone(name, "random").backbone)
    pixels = crops(3, 40)
    actual = backbone(pixels)
    assert actual.dtype == torch.float32
    assert actual.shape == (3, NAMES[name]) == (3, backbone.out_dim)
    expected = torchvision_features(backbone, pixels)
    assert (actual - expected).norm() <= 1e-5 * expected.norm()


def state(backbone: Backbone) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in backbone.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_training_does_not_change_a_frozen_backbone() -> None:
    backbone = load_backbone("resnet18", "random").backbone
    head = nn.Linear(512, 3)
    model = nn.ModuleDict({"backbone": backbone, "head": head})
    before = state(backbone)
    model.train()
    assert head.training
    assert not any(module.training for module in backbone.modules())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.1)
    for seed in range(2):
        features = backbone(crops(4, seed=seed))
        assert not features.requires_grad
        head(features).sum().backward()
        optimizer.step()
    assert_same(before, state(backbone))
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize("train_batchnorm", [False, True])
def test_all_parameters_of_a_trainable_backbone_have_gradients(train_batchnorm: bool) -> None:
    backbone = load_resnet("resnet18", "random", False, train_batchnorm)
    before = state(backbone)
    backbone.train()
    backbone(crops(4)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())
    unchanged = torch.equal(before["resnet.bn1.running_mean"], backbone.state_dict()["resnet.bn1.running_mean"])
    assert unchanged is not train_batchnorm
    assert not any(module.training for module in backbone.eval().modules())


def test_mean_and_std_are_not_in_checkpoints() -> None:
    assert not {"mean", "std"} & set(Backbone("resnet18", True).state_dict())
