"""Which parameters learn how fast: the head at the run's rate, the backbone's stages at theirs."""

from typing import Any

from torch import nn

from classify.model.head import Stage2Model
from configs.resnet_stage2_config import ResNetStage2Config

_STAGES = ("layer4", "layer3", "layer2", "layer1")  # from the head down; the stem comes last
_PLAIN = 0  # stages below a backbone's end, where it has no stages by these names


def rate_groups(model: Stage2Model, config: ResNetStage2Config) -> list[dict[str, Any]]:
    """The optimizer's parameter groups, each with its `scale`: its learning rate over that of the head.

    The head has 1, the last stage of the backbone backbone_lr / learning_rate (1 where backbone_lr is 0), and each
    stage below it `layer_decay` times the one above it; the stem lies below the first stage. Groups stand in the
    order of the model, so the head's is the last. Parameters that need no gradient are left out.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(rate_scale(name, config), []).append(parameter)
    head = groups.pop(1.0, [])
    parts = [{"params": parameters, "scale": scale} for scale, parameters in groups.items()]
    return [*parts, {"params": head, "scale": 1.0}]


def rate_scale(name: str, config: ResNetStage2Config) -> float:
    """The learning rate of the model's parameter `name` over that of the head."""
    if name.startswith("head."):
        return 1.0
    top = config.backbone_lr / config.learning_rate if config.backbone_lr else 1.0
    return top * config.layer_decay ** _depth(name)


def _depth(name: str) -> int:
    """How many stages lie between a parameter and the backbone's end."""
    if not name.startswith("backbone.resnet."):
        return _PLAIN
    stage = name.split(".")[2]
    return _STAGES.index(stage) if stage in _STAGES else len(_STAGES)
