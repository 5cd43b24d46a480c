"""The fusion head: bit-identical for (A, B) and (B, A), standardised, and all its parameters have gradients."""

import itertools

import numpy as np
import pytest
import torch

from classify.model.head import FusionHead, mean_and_std
from configs.resnet_stage2_config import FUSIONS


def make(fusion: str, dim: int = 24, visual: int = 10, classes: int = 3, **settings: bool) -> FusionHead:
    torch.manual_seed(0)
    head = FusionHead(dim, visual, fusion, num_classes=classes, hidden_dim=14, dropout=0.3, **settings)
    head.fit_scale([torch.randn(50, dim) * 3 + 1], torch.rand(50, 8))
    return head.eval()


@pytest.mark.parametrize(("fusion", "count"), list(itertools.product(FUSIONS, (1, 2, 3, 7, 24, 129))))
def test_logits_are_symmetric(fusion: str, count: int) -> None:
    head = make(fusion)
    features, spatial = torch.randn(40, 24), torch.rand(count, 8)
    a, b = torch.randint(0, 40, (2, count))
    assert torch.equal(head(features, a, b, spatial), head(features, b, a, spatial))
    swapped = torch.where(torch.arange(count) % 2 == 0, a, b), torch.where(torch.arange(count) % 2 == 0, b, a)
    assert torch.equal(head(features, a, b, spatial), head(features, *swapped, spatial))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize(("dim", "visual", "classes"), [(512, 256, 3), (2048, 3, 1), (5, 700, 4)])
def test_every_parameter_has_a_gradient_for_any_dimensions(fusion: str, dim: int, visual: int, classes: int) -> None:
    head = make(fusion, dim, visual, classes).train()
    logits = head(torch.randn(9, dim), torch.arange(4), torch.arange(4) + 4, torch.rand(4, 8))
    assert logits.shape == (4, classes)
    logits.square().sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("fusion", FUSIONS)
def test_logits_depend_on_both_people_and_on_spatial_features(fusion: str) -> None:
    head = make(fusion)
    features, spatial = torch.randn(3, 24), torch.rand(1, 8)
    a, b = torch.tensor([0]), torch.tensor([1])
    base = head(features, a, b, spatial)
    assert not torch.equal(base, head(features, a, torch.tensor([2]), spatial))
    assert not torch.equal(base, head(features, torch.tensor([2]), b, spatial))
    assert not torch.equal(base, head(features, a, b, spatial + 0.5))


@pytest.mark.parametrize(
    ("settings", "disabled", "enabled"),
    [({"use_geometric": False}, range(7), [7]), ({"use_scene_context": False}, [7], range(7))],
)
def test_spatial_features_can_be_disabled(settings: dict[str, bool], disabled: list[int], enabled: list[int]) -> None:
    head = make("concat", **settings)
    features, spatial = torch.randn(2, 24), torch.rand(1, 8)
    pair = torch.tensor([0]), torch.tensor([1])
    base = head(features, *pair, spatial)
    for column in range(8):
        changed = spatial.clone()
        changed[:, column] += 5
        assert torch.equal(base, head(features, *pair, changed)) == (column in disabled), column
        assert (column in disabled) != (column in enabled)


def test_mean_and_std_equal_numpy_in_float64() -> None:
    rows = torch.randn(20_000, 6) * torch.tensor([1e-3, 1, 10, 5, 2, 1e3]) + 7
    mean, std = mean_and_std(torch.split(rows, 37))
    array = rows.numpy().astype(np.float64)
    assert mean.numpy() == pytest.approx(array.mean(0), rel=1e-12)
    floor = 0.01 * array.std(0).mean() + 1e-6
    assert std.numpy() == pytest.approx(np.maximum(array.std(0), floor), rel=1e-9)


def test_mean_and_std_leave_the_rows_unchanged() -> None:
    """Also rows that are float64 already, which a conversion would not copy."""
    rows = torch.rand(50, 3, dtype=torch.float64)
    before = rows.clone()
    mean_and_std(rows.split(20))
    assert torch.equal(rows, before)


def test_a_constant_feature_gives_finite_logits() -> None:
    head = make("add")
    head.fit_scale([torch.ones(30, 24)], torch.zeros(30, 8))
    pair = torch.tensor([0]), torch.tensor([1])
    assert head(torch.ones(2, 24), *pair, torch.zeros(1, 8)).isfinite().all()


@pytest.mark.parametrize("settings", [{}, {"use_geometric": False}, {"use_scene_context": False}])
def test_spatial_features_are_standardised_by_the_training_pairs(settings: dict[str, bool]) -> None:
    head = FusionHead(24, 10, "concat", num_classes=3, hidden_dim=14, dropout=0.3, **settings)
    used = torch.tensor([settings.get("use_geometric", True)] * 7 + [settings.get("use_scene_context", True)])
    assert torch.equal(head.spatial_scale, used.float())
    spatial = torch.rand(500, 8) * torch.tensor([1.0, 2, 5, 10, 20, 50, 100, 200]) + 3
    head.fit_scale([torch.randn(50, 24)], spatial)
    scaled = spatial * head.spatial_scale + head.spatial_shift
    expected = (spatial - spatial.mean(0)) / spatial.std(0, unbiased=False) * used
    assert torch.allclose(scaled, expected, atol=2e-2)
    assert torch.allclose(scaled[:, used].std(0), torch.ones(int(used.sum())), atol=0.2)
