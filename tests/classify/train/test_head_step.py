"""The fused head step against autograd: the same losses, gradients and steps."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from classify.data.batches import PairBatch
from classify.model.head import FusionHead, Stage2Model, build_head
from classify.model.losses import Objective
from classify.train.autograd_step import AutogradStep
from classify.train.head_step import HeadState, HeadStep
from configs.resnet_stage2_config import FUSIONS, ResNetStage2Config
from tests.factories import small_config

DIM = 12
CPU = torch.device("cpu")


def objective(config: ResNetStage2Config) -> Objective:
    return Objective.from_config(config, (0.5, 1.0, 1.5), CPU)


def head_of(config: ResNetStage2Config, dtype: torch.dtype = torch.float32) -> FusionHead:
    torch.manual_seed(config.seed)
    head = build_head(config, DIM)
    head.fit_scale([torch.randn(50, DIM) * 3 + 1], torch.rand(50, 8))
    return head.to(dtype)


def batch_of(seed: int, pairs: int = 7, dtype: torch.dtype = torch.float32, classes: int = 3) -> PairBatch:
    generator = torch.Generator().manual_seed(seed)
    persons = torch.randn((2 * pairs, DIM), generator=generator, dtype=dtype)
    spatial = torch.rand((pairs, 8), generator=generator, dtype=dtype)
    label = torch.randint(0, classes, (pairs,), generator=generator)
    return PairBatch(persons, torch.arange(pairs), torch.arange(pairs) + pairs, spatial, label)


@pytest.fixture(autouse=True, params=["private", "public"])
def operators(request: pytest.FixtureRequest, hide: Callable[[], None]) -> None:
    """Runs every test with PyTorch's private operators, and with the public ones only."""
    if request.param == "public":
        hide()


@pytest.mark.parametrize("pairs", [1, 2, 30])
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_the_loss_and_its_gradient_equal_autograd(pairs: int, classes: int) -> None:
    config = small_config(mpca_weight=0.7, acc_weight=0.3)
    generator = torch.Generator().manual_seed(pairs)
    logits = 3 * torch.randn((4, pairs, 3), generator=generator, dtype=torch.float64)
    label = torch.randint(0, classes, (4, pairs), generator=generator)
    loss, gradient = objective(config).loss_and_gradient(logits, label)
    logits.requires_grad_()
    expected = torch.stack([objective(config).loss(one, y) for one, y in zip(logits, label, strict=True)])
    expected.sum().backward()
    assert torch.allclose(loss, expected, rtol=1e-12)
    assert torch.allclose(gradient, logits.grad, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("no_scene", [True, False])
def test_gradients_equal_autograd(fusion: str, no_scene: bool) -> None:
    config = small_config(fusion_strategy=fusion, dropout=0.0, use_scene_context=not no_scene)
    heads = [head_of(small_config(**(config_values(config) | {"seed": seed})), torch.float64) for seed in range(3)]
    batches = [batch_of(seed, dtype=torch.float64) for seed in range(3)]
    expected = []
    for head, batch in zip(heads, batches, strict=True):
        head.train().zero_grad()
        head.load_state_dict(heads[0].state_dict() | dict(head.named_parameters()))  # the same standardisation
        objective(config).loss(head(batch.persons, batch.a, batch.b, batch.spatial), batch.label).backward()
        expected.append({name: parameter.grad.clone() for name, parameter in head.named_parameters()})
    step = HeadStep([HeadState(head, config) for head in heads], objective(config))
    stacked = [torch.stack([getattr(batch, name) for batch in batches]) for name in ("persons", "spatial", "label")]
    with torch.no_grad():
        step._backward(*stacked)
    for row, gradients in enumerate(expected):
        for name, gradient in gradients.items():
            assert torch.allclose(step._gradient[name][row], gradient, rtol=1e-9, atol=1e-13), name


def config_values(config: ResNetStage2Config) -> dict[str, Any]:
    names = ("fusion_strategy", "dropout", "use_scene_context")
    return {name: getattr(config, name) for name in names}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_steps_equal_autograd(fusion: str) -> None:
    """With clipping and weight decay, by Adam."""
    config = small_config(fusion_strategy=fusion, dropout=0.0, weight_decay=0.01, grad_clip=0.05)
    one, other = head_of(config), head_of(config)
    fused = HeadStep([HeadState(one, config)], objective(config))
    plain = AutogradStep(Stage2Model(nn.Identity(), other), objective(config), config)
    for number in range(20):
        rate = 0.01 / (1 + number)
        loss = fused([batch_of(number)], rate)
        assert loss.item() == pytest.approx(plain(batch_of(number), rate).item(), rel=1e-4)
    for name, parameter in one.named_parameters():
        assert torch.allclose(parameter, other.get_parameter(name), rtol=1e-3, atol=1e-4), name
    assert not torch.allclose(one.project.weight, head_of(config).project.weight, atol=1e-3)


def test_dropout_masks_and_scales_as_autograd_does() -> None:
    """Autograd with the random numbers that the step's generator draws."""
    config = small_config(dropout=0.3)
    head, twin = head_of(config, torch.float64), head_of(config, torch.float64)
    state, batch = HeadState(head, config), batch_of(0, dtype=torch.float64)
    count = 7 * config.hidden_dim
    drawn = torch.Generator().manual_seed(config.seed)
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None, generator=drawn)
    shorts = np.frombuffer(bits.numpy().tobytes(), np.int16)[:count].astype(np.float64)
    chance = torch.from_numpy(shorts / 2**16 + 0.5).view(7, config.hidden_dim)

    class Drop(nn.Module):
        p = 0.3

        def forward(self, hidden: Tensor) -> Tensor:
            return hidden * (chance > 0.3) / 0.7

    twin.dropout = Drop()  # type: ignore[assignment]
    step = HeadStep([state], objective(config))
    loss = step([batch], 0.0)
    expected = objective(config).loss(twin(batch.persons, batch.a, batch.b, batch.spatial), batch.label)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert 0.6 < float((chance > 0.3).double().mean()) < 0.8


def test_a_restored_head_state_gives_the_same_steps() -> None:
    config = small_config(dropout=0.5)
    head = head_of(config)
    state = HeadState(head, config)
    step = HeadStep([state], objective(config))
    for number in range(3):
        step([batch_of(number)], 0.01)
    saved, parameters = state.state_dict(), {key: value.clone() for key, value in head.state_dict().items()}
    losses = [step([batch_of(number)], 0.01).item() for number in range(3, 8)]
    again = head_of(config)
    again.load_state_dict(parameters)
    resumed = HeadState(again, config)
    resumed.load_state_dict(saved)
    step = HeadStep([resumed], objective(config))
    assert [step([batch_of(number)], 0.01).item() for number in range(3, 8)] == losses


def test_without_dropout_no_random_number_is_drawn() -> None:
    for dropout in (0.0, 0.3):
        config = small_config(dropout=dropout)
        state = HeadState(head_of(config), config)
        before = state.generator.get_state().clone()
        HeadStep([state], objective(config))([batch_of(0)], 0.01)
        assert torch.equal(before, state.generator.get_state()) == (dropout == 0.0)
