"""The fusion head: symmetric bit for bit, standardised, trainable in all its parts."""

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
def test_the_answer_for_a_b_is_that_for_b_a(fusion: str, count: int) -> None:
    head = make(fusion)
    features, spatial = torch.randn(40, 24), torch.rand(count, 8)
    a, b = torch.randint(0, 40, (2, count))
    assert torch.equal(head(features, a, b, spatial), head(features, b, a, spatial))
    swapped = torch.where(torch.arange(count) % 2 == 0, a, b), torch.where(torch.arange(count) % 2 == 0, b, a)
    assert torch.equal(head(features, a, b, spatial), head(features, *swapped, spatial))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize(("dim", "visual", "classes"), [(512, 256, 3), (2048, 3, 1), (5, 700, 4)])
def test_any_dimensions_work_and_every_part_learns(fusion: str, dim: int, visual: int, classes: int) -> None:
    head = make(fusion, dim, visual, classes).train()
    logits = head(torch.randn(9, dim), torch.arange(4), torch.arange(4) + 4, torch.rand(4, 8))
    assert logits.shape == (4, classes)
    logits.square().sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("fusion", FUSIONS)
def test_both_people_and_their_place_count(fusion: str) -> None:
    head = make(fusion)
    features, spatial = torch.randn(3, 24), torch.rand(1, 8)
    one, two = torch.tensor([0]), torch.tensor([1])
    base = head(features, one, two, spatial)
    assert not torch.equal(base, head(features, one, torch.tensor([2]), spatial))
    assert not torch.equal(base, head(features, torch.tensor([2]), two, spatial))
    assert not torch.equal(base, head(features, one, two, spatial + 0.5))


@pytest.mark.parametrize(
    ("settings", "silent", "heard"),
    [({"use_geometric": False}, range(7), [7]), ({"use_scene_context": False}, [7], range(7))],
)
def test_spatial_groups_can_be_switched_off(settings: dict[str, bool], silent: list[int], heard: list[int]) -> None:
    head = make("concat", **settings)
    features, spatial = torch.randn(2, 24), torch.rand(1, 8)
    pair = torch.tensor([0]), torch.tensor([1])
    base = head(features, *pair, spatial)
    for column in range(8):
        moved = spatial.clone()
        moved[:, column] += 5
        assert torch.equal(base, head(features, *pair, moved)) == (column in silent), column
        assert (column in silent) != (column in heard)


def test_standardising_is_that_of_numpy_in_float64() -> None:
    rows = torch.randn(20_000, 6) * torch.tensor([1e-3, 1, 10, 5, 2, 1e3]) + 7
    mean, std = mean_and_std(torch.split(rows, 37))
    array = rows.numpy().astype(np.float64)
    assert mean.numpy() == pytest.approx(array.mean(0), rel=1e-12)
    floor = 0.01 * array.std(0).mean() + 1e-6
    assert std.numpy() == pytest.approx(np.maximum(array.std(0), floor), rel=1e-9)


def test_a_constant_feature_does_not_explode() -> None:
    head = make("add")
    head.fit_scale([torch.ones(30, 24)], torch.zeros(30, 8))
    pair = torch.tensor([0]), torch.tensor([1])
    assert head(torch.ones(2, 24), *pair, torch.zeros(1, 8)).isfinite().all()
