"""How far features of a lower precision are from those of float32: the bounds that the documentation states.

The CPU rounds to bfloat16 and float16 as a GPU does, so the bounds can be held to without one.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from extract.backbones.forward import cast_convolutions
from extract.backbones.weights import load_backbone
from tests.oracles import PRECISION_ERROR

WEIGHTS = Path(__file__).parents[4] / "shared" / "weights"
LOWER = sorted(PRECISION_ERROR)


def people(count: int, size: int) -> Tensor:
    """Smooth pictures, as crops of people are, and not noise: (count, 3, size, size) uint8."""
    coarse = torch.rand((count, 3, 6, 6), generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)
    return (255 * smooth).to(torch.uint8).contiguous(memory_format=torch.channels_last)


def errors(name: str, weights: str, precision: str) -> Tensor:
    """Of each crop, the error's length as a share of the feature's."""
    backbone, crops = load_backbone(name, weights).backbone, people(4, 112)
    with torch.inference_mode():
        exact = backbone(crops).double()
        with torch.autocast("cpu", getattr(torch, precision)):
            lower = cast_convolutions(backbone, getattr(torch, precision))(crops).double()
    return (lower - exact).norm(dim=1) / exact.norm(dim=1)


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_features_of_a_lower_precision_are_within_the_stated_bound(name: str, precision: str) -> None:
    found = errors(name, "random", precision)
    assert found.min() > 0 and found.max() <= PRECISION_ERROR[precision]


@pytest.mark.parametrize("precision", LOWER)
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_the_bound_holds_with_trained_weights(name: str, precision: str) -> None:
    file = WEIGHTS / f"{name}_imagenet.pth"
    if not file.exists():
        pytest.skip(f"{file.name} is not at hand")
    found = errors(name, str(file), precision)
    assert found.min() > 0 and found.max() <= PRECISION_ERROR[precision]


def test_lowering_leaves_the_backbone_as_it_was() -> None:
    backbone = load_backbone("resnet18", "random").backbone
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    cast_convolutions(backbone, torch.bfloat16)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
