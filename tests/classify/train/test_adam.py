"""Adam by PyTorch's private operator and by the public function; training works without private operators."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from classify.train.adam import adam_step, has_fused_adam, mask_where_zero
from tests.factories import make_features, make_tables, read_history, small_config, train_head


@pytest.mark.parametrize("hidden", [False, True])
def test_steps_equal_those_of_the_optimizer(hidden: bool, hide: Callable[[], None]) -> None:
    if hidden:
        hide()
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(50, generator=generator)
    parameter = nn.Parameter(start.double())
    optimizer = torch.optim.Adam([parameter], weight_decay=0.02)
    value, mean, square, steps = start.clone(), torch.zeros(50), torch.zeros(50), torch.tensor(0.0)
    for rate in (0.1, 0.05, 0.0, 0.2):
        gradient = torch.randn(50, generator=generator)
        parameter.grad = gradient.double()
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        kept = gradient.clone()
        adam_step(value, gradient, mean, square, steps, rate=rate, weight_decay=0.02)
        torch.testing.assert_close(value.double(), parameter.detach(), rtol=1e-5, atol=1e-6)
        assert torch.equal(gradient, kept)
    assert steps.item() == 4


@pytest.mark.parametrize("hidden", [False, True])
def test_gradients_pass_where_the_activation_is_positive(hidden: bool, hide: Callable[[], None]) -> None:
    if hidden:
        hide()
    x = torch.tensor([-1.0, 0.0, 2.0, 3.0], requires_grad=True)
    output = x.relu()
    output.backward(torch.tensor([5.0, 6.0, 7.0, -8.0]))
    assert torch.equal(mask_where_zero(torch.tensor([5.0, 6.0, 7.0, -8.0]), output.detach()), x.grad)


def test_an_operator_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: Any = lambda values, *_, **__: values[0].zero_()  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(torch, "_fused_adam_", wrong)
        has_fused_adam.cache_clear()
        assert not has_fused_adam()
    has_fused_adam.cache_clear()


def test_the_fused_operator_is_used_where_it_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(torch, "_fused_adam_"):
        pytest.skip("this PyTorch has no fused operator")
    has_fused_adam.cache_clear()
    assert has_fused_adam()


def test_training_without_private_operators_gives_the_same_metrics(tmp_path: Path, hide: Callable[[], None]) -> None:
    features = make_features(make_tables())
    train_head(features, small_config(tmp_path / "usual"))
    hide()
    train_head(features, small_config(tmp_path / "public"))
    losses = [[record["val_loss"] for record in read_history(tmp_path / name)] for name in ("usual", "public")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
