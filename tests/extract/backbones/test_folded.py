"""Inference with folded BatchNorm equals the plain model, and a crop's bits do not depend on its batch.

All of it holds with PyTorch's private operators for packed weights and, where they are missing, with its public ones.
"""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from extract.backbones.folded import can_pack
from extract.backbones.forward import Forward, frozen_forward
from extract.backbones.resnet import Backbone
from extract.backbones.weights import load_backbone
from extract.units.collect import CPU_SIZES
from tests.resnets import crops, torchvision_features, with_random_batchnorm

CPU = torch.device("cpu")
SIZES = (1, 2, 3, 5, 8, 9, 15, 16, 17)  # public operators round differently below 16


@pytest.fixture(params=["packed", "public"])
def operators(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Runs a test with the private operators, and with these operators hidden."""
    can_pack.cache_clear()
    if request.param == "public":
        monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    elif not can_pack():
        pytest.skip("this version of torch has no operators for packed weights")
    yield request.param
    can_pack.cache_clear()


def random_backbone(name: str) -> Backbone:
    backbone = load_backbone(name, "random").backbone
    assert isinstance(backbone, Backbone)
    return with_random_batchnorm(backbone)


def batch(*parts: Tensor) -> Tensor:
    return torch.cat(parts).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_features_equal_torchvisions_within_1e_5(operators: str, name: str) -> None:
    backbone = random_backbone(name)
    forward = frozen_forward(backbone, 40, CPU, "float32")
    assert can_pack() == (operators == "packed")
    for count in (1, 4):
        pixels = batch(crops(count, 40, seed=count))
        expected, actual = torchvision_features(backbone, pixels), forward(pixels)
        assert actual.dtype == torch.float32 and actual.shape == expected.shape
        assert ((actual - expected).norm(dim=1) <= 1e-5 * expected.norm(dim=1)).all()


def assert_independent_of_the_batch(forward: Forward, pixels: Tensor) -> None:
    """Asserts that a crop has the same bits in batches of any size, at any position, with any other crops."""
    alone = torch.cat([forward(batch(crop[None])) for crop in pixels])
    for count in {*SIZES, *CPU_SIZES}:
        if count <= len(pixels):
            assert torch.equal(forward(batch(pixels[:count])), alone[:count]), count
    assert torch.equal(forward(batch(pixels.roll(4, 0))).roll(-4, 0), alone)
    assert torch.equal(forward(batch(pixels[:1], crops(3, pixels.shape[-1], seed=8)))[0], alone[0])


@pytest.mark.parametrize(("name", "size", "count"), [("resnet18", 32, 32), ("resnet18", 112, 17), ("resnet50", 32, 32)])
def test_features_do_not_depend_on_the_batch(operators: str, name: str, size: int, count: int) -> None:
    assert_independent_of_the_batch(
        frozen_forward(random_backbone(name), size, CPU, "float32"), batch(crops(count, size))
    )


def test_another_crop_size_than_planned_gives_the_same_features(operators: str) -> None:
    backbone, pixels = random_backbone("resnet18"), batch(crops(3, 48))
    forwards = [frozen_forward(backbone, size, CPU, "float32") for size in (48, 96)]
    assert torch.equal(forwards[0](pixels), forwards[1](pixels))


def test_two_forwards_give_the_same_bits(operators: str) -> None:
    """A resumed job folds the backbone again and must write the same bytes."""
    backbone, pixels = random_backbone("resnet18"), batch(crops(4))
    first, second = (frozen_forward(backbone, 32, CPU, "float32") for _ in range(2))
    expected = first(pixels).clone()
    assert all(torch.equal(forward(pixels), expected) for forward in (first, second) for _ in range(3))


def test_folding_changes_neither_the_backbone_nor_the_random_numbers(operators: str) -> None:
    backbone = random_backbone("resnet18")
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    can_pack.cache_clear()
    state = torch.get_rng_state()
    pixels = crops(3)
    expected = pixels.clone()
    frozen_forward(backbone, 32, CPU, "float32")(batch(pixels))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(pixels, expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_operators_that_compute_something_else_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    if not can_pack():
        pytest.skip("this version of torch has no operators for packed weights")
    real = torch.ops.mkldnn
    wrong = SimpleNamespace(
        _reorder_convolution_weight=real._reorder_convolution_weight,
        _convolution_pointwise=lambda *arguments: 2 * real._convolution_pointwise(*arguments),
        _convolution_pointwise_=real._convolution_pointwise_,
    )
    can_pack.cache_clear()
    monkeypatch.setattr(torch.ops, "mkldnn", wrong)
    assert not can_pack()
    can_pack.cache_clear()
