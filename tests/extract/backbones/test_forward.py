"""Features of a lower precision are within the documented bounds.

The CPU rounds to bfloat16 and float16 like a GPU, so the bounds can be tested without one.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from configs.errors import DeviceError
from extract.backbones.forward import cast_convolutions, frozen_forward
from extract.backbones.hog import Hog
from extract.backbones.precision import faster_precision, has_native_bfloat16
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


native = pytest.mark.skipif(not has_native_bfloat16(), reason="this CPU has no instructions for bfloat16")
CPU = torch.device("cpu")


@native
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_bfloat16_on_the_cpu_is_within_the_bound_and_does_not_depend_on_the_batch(name: str) -> None:
    backbone, crops = load_backbone(name, "random").backbone, smooth_crops(17, 64)
    forward = frozen_forward(backbone, 64, CPU, "bfloat16")
    exact, lower = backbone(crops).double(), forward(crops)
    assert lower.dtype == torch.float32
    relative = (lower - exact).norm(dim=1) / exact.norm(dim=1)
    assert relative.min() > 1e-4 and relative.max() <= PRECISION_ERROR["bfloat16"]
    for count in (1, 2, 3, 8, 16):
        assert torch.equal(forward(crops[:count]), lower[:count])
    assert torch.equal(forward(crops[5:6])[0], lower[5])


@native
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_bfloat16_on_the_cpu_is_within_the_bound_with_trained_weights(name: str) -> None:
    file = WEIGHTS / f"{name}_imagenet.pth"
    if not file.exists():
        pytest.skip(f"{file.name} is not available")
    backbone, crops = load_backbone(name, str(file)).backbone, smooth_crops(4, 112)
    exact = backbone(crops).double()
    relative = (frozen_forward(backbone, 112, CPU, "bfloat16")(crops) - exact).norm(dim=1) / exact.norm(dim=1)
    assert relative.min() > 1e-4 and relative.max() <= PRECISION_ERROR["bfloat16"]


def test_hog_is_only_computed_in_float32() -> None:
    with pytest.raises(DeviceError, match="hog only in float32"):
        frozen_forward(Hog(), 48, CPU, "bfloat16")


@pytest.mark.parametrize(
    ("precision", "backbone", "on_cpu", "capability", "hint"),
    [
        ("float32", "resnet18", True, "avx512_bf16", True),
        ("float32", "resnet18", True, "amx_bf16", True),
        ("float32", "resnet18", True, "avx512_vnni", True),
        ("float32", "resnet50", True, "avx512_f", False),
        ("bfloat16", "resnet18", True, "avx512_bf16", False),
        ("float32", "hog", True, "avx512_bf16", False),
        ("float32", "resnet18", False, "avx512_bf16", False),
    ],
)
def test_a_faster_precision_is_named_where_the_cpu_has_it(
    precision: str, backbone: str, on_cpu: bool, capability: str, hint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True})
    assert bool(faster_precision(precision, backbone, on_cpu)) is hint
