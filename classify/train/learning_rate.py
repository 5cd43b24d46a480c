"""Learning rates: the schedule over the steps of a run, and the parameter groups with a rate of their own."""

import math
from typing import Any

from torch import nn

from classify.model.head import Stage2Model
from configs.resnet_stage2_config import ResNetStage2Config

_STAGES = ("layer4", "layer3", "layer2", "layer1", "stem")  # from the head down


def learning_rate(config: ResNetStage2Config, step: int, steps_per_epoch: int) -> float:
    """The head's learning rate at a step, counted from 0 over all epochs of the run."""
    warmup = round(config.warmup_epochs * steps_per_epoch)
    return warmup_cosine(step, config.learning_rate, warmup, config.epochs * steps_per_epoch)


def warmup_cosine(step: int, base: float, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up to `base` over `warmup_steps`, then half a cosine towards 0 at `total_steps`.

    The first step has base / warmup_steps instead of 0, and the last step is still above 0. After `total_steps` the
    rate is 0.
    """
    if step < warmup_steps:
        return base * (step + 1) / warmup_steps
    if step >= total_steps:
        return 0.0
    share = (step - warmup_steps) / (total_steps - warmup_steps)
    return base * 0.5 * (1.0 + math.cos(math.pi * share))


def param_groups(model: Stage2Model, config: ResNetStage2Config) -> list[dict[str, Any]]:
    """The optimizer's parameter groups, each with its `scale`: its learning rate divided by the head's.

    Groups are in the order of the model, so the head's group is the last one. Frozen parameters are left out.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(rate_scale(name, config), []).append(parameter)
    head = groups.pop(1.0, [])
    parts = [{"params": parameters, "scale": scale} for scale, parameters in groups.items()]
    return [*parts, {"params": head, "scale": 1.0}]


def rate_scale(name: str, config: ResNetStage2Config) -> float:
    """The learning rate of the model's parameter `name` divided by the head's.

    The last stage of the backbone has backbone_lr / learning_rate (1 if backbone_lr is 0); each stage below it has
    `layer_decay` times the scale of the stage above. The stem is below the first stage.
    """
    if name.startswith("head."):
        return 1.0
    last_stage = config.backbone_lr / config.learning_rate if config.backbone_lr else 1.0
    return last_stage * config.layer_decay ** _stages_above(name)


def _stages_above(name: str) -> int:
    """How many stages are between a parameter and the backbone's output; 0 if the backbone has no such stages."""
    if not name.startswith("backbone.resnet."):
        return 0
    stage = name.split(".")[2]
    return _STAGES.index(stage if stage in _STAGES else "stem")
