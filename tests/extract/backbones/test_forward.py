"""Features of a lower precision are within the documented bounds.

The CPU rounds to bfloat16 and float16 like a GPU, so the bounds can be tested without one.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from extract.backbones.forward import cast_convolutions
from extract.backbones.weights import load_backbone
from tests.oracles import PRECISION_ERROR

WEIGHTS = Path(__file__).parents[4] / "shared" / "weights"
LOWER_PRECISIONS = sorted(PRECISION_ERROR)


def smooth_crops(count: int, size: int) -> Tensor:
    """Returns smooth images, like crops of people: (count, 3, size, size) uint8."""
    coarse = torch.rand((count, 3, 6, 6), generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)
    return (255 * smooth).to(torch.uint8).contiguous(memory_format=torch.channels_last)


def errors(name: str, weights: str, precision: str) -> Tensor:
    """Returns the error of each crop's features: the length of the difference, as a share of the exact length."""
    backbone, crops = load_backbone(name, weights).backbone, smooth_crops(4, 112)
    with torch.inference_mode():
        exact = backbone(crops).double()
        with torch.autocast("cpu", getattr(torch, precision)):
            lower = cast_convolutions(backbone, getattr(torch, precision))(crops).double()
    return (lower - exact).norm(dim=1) / exact.norm(dim=1)


@pytest.mark.parametrize("precision", LOWER_PRECISIONS)
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_features_of_a_lower_precision_are_within_the_stated_bound(name: str, precision: str) -> None:
    relative = errors(name, "random", precision)
    assert relative.min() > 0 and relative.max() <= PRECISION_ERROR[precision]


@pytest.mark.parametrize("precision", LOWER_PRECISIONS)
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_the_bound_holds_with_trained_weights(name: str, precision: str) -> None:
    file = WEIGHTS / f"{name}_imagenet.pth"
    if not file.exists():
        pytest.skip(f"{file.name} is not available")
    relative = errors(name, str(file), precision)
    assert relative.min() > 0 and relative.max() <= PRECISION_ERROR[precision]


def test_casting_the_convolutions_does_not_change_the_original() -> None:
    backbone = load_backbone("resnet18", "random").backbone
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    cast_convolutions(backbone, torch.bfloat16)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
