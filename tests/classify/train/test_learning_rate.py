"""Learning rates of the backbone's stages, and its frozen stages."""

import math
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from classify.data.batches import PairBatch
from classify.model.head import Stage2Model, build_head
from classify.model.losses import Objective
from classify.train.autograd_step import AutogradStep
from classify.train.learning_rate import learning_rate, rate_scale, warmup_cosine
from configs.errors import ConfigError
from configs.resnet_stage2_config import ResNetStage2Config
from extract.backbones.resnet import Backbone
from tests.factories import TinyBackbone, small_config

NAMES = ("stem", "layer1", "layer2", "layer3", "layer4")


def model_of(config: ResNetStage2Config, freeze_blocks: int = 0, train_batchnorm: bool = False) -> Stage2Model:
    torch.manual_seed(0)
    backbone = Backbone("resnet18", False, train_batchnorm)
    backbone.freeze_stages(freeze_blocks)
    return Stage2Model(backbone, build_head(config, backbone.out_dim))


def stage_of(name: str) -> str:
    part = name.split(".")[2] if name.startswith("backbone.") else "head"
    return "stem" if part in {"conv1", "bn1"} else part


def batch(size: int = 32) -> PairBatch:
    generator = torch.Generator().manual_seed(1)
    crops = torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8, generator=generator)
    rows = torch.tensor([[0, 1, 2], [1, 2, 3]])
    return PairBatch(crops, rows[0], rows[1], torch.rand(3, 8, generator=generator), torch.tensor([0, 1, 2]))


def param_groups_of(model: Stage2Model, config: ResNetStage2Config) -> list[dict[str, Any]]:
    objective = Objective.from_config(config, [1.0] * 3, torch.device("cpu"))
    return AutogradStep(model, objective, config).optimizer.param_groups


def test_each_stage_has_its_learning_rate() -> None:
    config = small_config(learning_rate=1e-3, backbone_lr=1e-4, layer_decay=0.5)
    model = model_of(config)
    rates = {id(p): group["scale"] * 1e-3 for group in param_groups_of(model, config) for p in group["params"]}
    wanted = {"head": 1e-3, "layer4": 1e-4, "layer3": 5e-5, "layer2": 2.5e-5, "layer1": 1.25e-5, "stem": 6.25e-6}
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(wanted[stage_of(name)]), name
    plain = param_groups_of(model_of(small_config()), small_config())
    assert [group["scale"] for group in plain] == [1.0]
    tiny = small_config(learning_rate=1e-3, backbone_lr=1e-4)
    groups = param_groups_of(Stage2Model(TinyBackbone(), build_head(tiny, 8)), tiny)  # type: ignore[arg-type]
    assert [group["scale"] for group in groups] == pytest.approx([0.1, 1.0])


@pytest.mark.parametrize("count", range(5))
@pytest.mark.parametrize("train_batchnorm", [True, False])
def test_frozen_stages_do_not_change(count: int, train_batchnorm: bool) -> None:
    frozen = set(NAMES[: count + 1] if count else ())
    model = model_of(small_config(), count, train_batchnorm).train()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.trainable_parameters(), lr=0.1)
    model(batch(64)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (stage_of(name) in frozen), name
    optimizer.step()
    for key, tensor in model.state_dict().items():
        if "running" in key:
            assert torch.equal(before[key], tensor) == (stage_of(key) in frozen or not train_batchnorm), key
        elif stage_of(key) in frozen:
            assert torch.equal(before[key], tensor), key


@pytest.mark.parametrize("count", [0, 2, 4])
def test_frozen_stages_and_checkpointing_change_no_output(count: int) -> None:
    model = model_of(small_config(), count)
    backbone = model.backbone.eval()
    oracle = torchvision.models.resnet18(weights=None).eval()
    oracle.fc = nn.Identity()
    oracle.load_state_dict({k.removeprefix("resnet."): v for k, v in backbone.state_dict().items()})
    crops = batch().persons
    expected = oracle((crops.float() - backbone.mean) / backbone.std)
    assert torch.equal(backbone(crops), expected)
    assert torch.equal(backbone(backbone.forward_frozen_stages(crops)), expected)
    backbone.checkpointing = True
    assert torch.equal(backbone(crops), expected)


def test_checkpointing_does_not_change_the_gradients() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = model_of(small_config(dropout=0.0))
        model.backbone.checkpointing = checkpointing
        model.train()(batch()).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("setting", [{"accumulate": 2}, {"checkpointing": True}])
def test_batchnorm_train_excludes_settings_that_forward_twice(setting: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="batchnorm"):
        small_config(batchnorm="train", **setting)


def test_the_schedule_warms_up_linearly_and_falls_by_half_a_cosine() -> None:
    rates = [warmup_cosine(step, 2.0, 4, 12) for step in range(14)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[4] == 2.0
    assert rates[8] == pytest.approx(1.0)  # half way
    assert rates[11] == pytest.approx(1 + math.cos(math.pi * 7 / 8))
    assert rates[11] > 0
    assert rates[12:] == pytest.approx([0.0, 0.0], abs=1e-15)
    assert warmup_cosine(0, 2.0, 0, 1) == 2.0
    assert [warmup_cosine(step, 2.0, 4, 4) for step in (2, 3, 4)] == [1.5, 2.0, 0.0]  # warm-up only


def test_the_learning_rate_counts_steps_over_all_epochs() -> None:
    config = small_config(learning_rate=1.0, warmup_epochs=0.5, epochs=3)
    rates = [learning_rate(config, step, 4) for step in range(12)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[7] == pytest.approx(0.5 * (1 + math.cos(math.pi * 5 / 10)))
    assert rates == sorted(rates[:2]) + sorted(rates[2:], reverse=True)


def test_a_backbone_without_stages_is_one_stage() -> None:
    config = small_config(learning_rate=1e-3, backbone_lr=1e-4, layer_decay=0.5)
    names = ("backbone.conv.weight", "backbone.resnet.layer4.0.conv1.weight", "backbone.resnet.conv1.weight")
    assert [rate_scale(name, config) for name in names] == pytest.approx([0.1, 0.1, 0.1 * 0.5**4])
