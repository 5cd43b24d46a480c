"""The backbone equals torchvision's ResNet up to its pooling layer, and a frozen one cannot change."""

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from extract.backbones.forward import frozen_forward
from extract.backbones.resnet import Backbone
from extract.backbones.weights import load_backbone, load_resnet
from extract.units.collect import CPU_SIZES

NAMES = {"resnet18": 512, "resnet34": 512, "resnet50": 2048}
CPU = torch.device("cpu")


def crops(count: int, size: int = 32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def torchvision_features(backbone: Backbone, pixels: Tensor) -> Tensor:
    """Returns the features of torchvision's model with its preprocessing, without resizing."""
    model = torchvision.models.get_model(backbone.name, weights=None)
    model.fc = nn.Identity()
    model.load_state_dict(backbone.resnet.state_dict())
    model.eval()
    normalise = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        features: Tensor = model(normalise(pixels.float() / 255))
    return features


def with_random_batchnorm(backbone: Backbone) -> Backbone:
    """Gives BatchNorm random statistics instead of the trivial ones of new weights."""
    generator = torch.Generator().manual_seed(1)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            with torch.no_grad():
                module.weight.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
                module.bias.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
    return backbone


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


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return with_random_batchnorm(load_backbone("resnet18", "random").backbone)


@pytest.fixture(scope="module")
def forward(backbone: Backbone) -> Any:
    return frozen_forward(backbone, 32, CPU, "float32")


def batch(*parts: Tensor) -> Tensor:
    return torch.cat(parts).contiguous(memory_format=torch.channels_last)


def test_frozen_forward_equals_the_plain_one_within_1e_5(backbone: Backbone, forward: Any) -> None:
    for seed in range(4):
        pixels = batch(crops(4, seed=seed))
        plain = backbone(pixels)
        assert (forward(pixels) - plain).norm() <= 1e-5 * plain.norm()


def test_features_do_not_depend_on_the_batch(forward: Any) -> None:
    """The same crop has the same bits in batches of any size, at any position, with any other crops."""
    pixels = crops(max(CPU_SIZES))
    alone = torch.cat([forward(batch(pixels[i : i + 1])) for i in range(len(pixels))])
    for count in (*range(2, 10), *CPU_SIZES):
        assert torch.equal(forward(batch(pixels[:count])), alone[:count])
    assert torch.equal(forward(batch(pixels.roll(4, 0))).roll(-4, 0), alone)
    assert torch.equal(forward(batch(pixels[:1], crops(3, seed=8)))[0], alone[0])


def test_frozen_forward_is_deterministic(forward: Any) -> None:
    pixels = batch(crops(4))
    first = forward(pixels).clone()
    assert all(torch.equal(forward(pixels), first) for _ in range(5))


def test_two_frozen_forwards_give_the_same_bits(backbone: Backbone, forward: Any) -> None:
    """A resumed job traces the backbone again and must write the same bytes."""
    again = frozen_forward(backbone, 32, CPU, "float32")
    pixels = batch(crops(4))
    assert torch.equal(again(pixels), forward(pixels))
