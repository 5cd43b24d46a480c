"""The loss against float64 loops, its gradient, and the class weights."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from classify.model.losses import class_weights, stage2_loss


def oracle(logits: np.ndarray, label: np.ndarray, weight: np.ndarray, mpca: float, acc: float) -> float:
    """The formulas of the training guide, sample by sample."""
    probability = [[math.exp(v - max(row)) for v in row] for row in logits.tolist()]
    probability = [[v / sum(row) for v in row] for row in probability]
    total = sum(weight[y] for y in label)
    entropy = sum(-weight[y] * math.log(p[y]) for p, y in zip(probability, label, strict=True)) / total
    soft = []
    for c in range(logits.shape[1]):
        of_class = [p[c] for p, y in zip(probability, label, strict=True) if y == c]
        if of_class:
            soft.append(sum(of_class) / len(of_class))
    mean = sum(soft) / len(soft)
    variance = sum((s - mean) ** 2 for s in soft) / len(soft) if len(soft) > 1 else 0.0
    return entropy + mpca * variance - acc * sum(p[y] for p, y in zip(probability, label, strict=True)) / len(label)


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 1000))
def test_the_loss_equals_float64_loops(count: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, label = rng.normal(0, 3, (count, classes)), rng.integers(0, classes, count)
    weight = rng.uniform(0.2, 3, classes)
    loss = stage2_loss(torch.tensor(logits), torch.tensor(label), torch.tensor(weight), 0.1, 0.05)
    assert float(loss) == pytest.approx(oracle(logits, label, weight, 0.1, 0.05), rel=1e-10, abs=1e-12)


def test_the_gradient_is_the_derivative() -> None:
    logits = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    label = torch.tensor([0, 1, 1, 0, 1, 0, 0])  # class 2 does not occur
    weight = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: stage2_loss(z, label, weight, 0.7, 0.3), logits)


def test_class_weights_are_inverse_frequencies_of_mean_one() -> None:
    weight = np.array(class_weights(np.array([10, 5, 0, 1]), "loss"))
    present = weight[[0, 1, 3]]
    assert present.mean() == pytest.approx(1)
    assert present * [10, 5, 1] == pytest.approx(np.full(3, present[0] * 10))
    assert weight[2] == 1
    for balance in ("none", "sampler"):  # classes are balanced in one place only
        assert class_weights(np.array([10, 5, 0, 1]), balance) == (1.0, 1.0, 1.0, 1.0)
