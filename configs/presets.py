"""The training guide's presets: `stage2 run NAME`, or `python run_resnet_training.py NAME`.

command                      epochs  time     GPU memory  val accuracy  val MPCA
stage2 run resnet18          50      2-3 h    4 GB        65-75 %       0.60-0.70
stage2 run resnet18_frozen   30      seconds  3 GB        60-70 %       0.55-0.65
stage2 run resnet34          50      3-4 h    5 GB        70-78 %       0.65-0.75
stage2 run resnet50          40      4-6 h    8 GB        75-82 %       0.70-0.80
stage2 run debug             5       short: every 10th frame; checks that data and settings work
stage2 run test              2       shorter still; checks that the command runs

The numbers are the guide's, for the whole dataset and one GPU. The seconds of resnet18_frozen do not include the
extraction of the features (the guide: 1-2 h in all), which runs once for all runs with the same backbone.
"""

from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from configs.errors import ConfigError
from configs.resnet_stage2_config import ResNetStage2Config


@dataclass(frozen=True)
class Preset:
    """A named configuration."""

    name: str
    description: str  # purpose, cost and expected result, in one line
    settings: dict[str, Any]  # the settings that differ from ResNetStage2Config's defaults

    def config(self, **overrides: Any) -> ResNetStage2Config:
        """The preset's configuration; `overrides` replace its settings. Raises ConfigError."""
        return replace(ResNetStage2Config(), **{**self.settings, **overrides})


_DEBUG = {"batch_size": 4, "epochs": 5, "frame_interval": 10}

PRESETS = (
    Preset(
        "resnet18",
        "standard, recommended: ResNet18, 50 epochs; 65-75 % accuracy, MPCA 0.60-0.70, 2-3 h, 4 GB",
        {"batch_size": 16, "learning_rate": 1e-4, "epochs": 50},
    ),
    Preset(
        "resnet18_frozen",
        "fast training on cached features: 30 epochs; 60-70 % accuracy, MPCA 0.55-0.65, seconds after extraction",
        {"freeze_backbone": True, "batch_size": 24, "learning_rate": 1e-3, "epochs": 30},
    ),
    Preset(
        "resnet34",
        "better accuracy: ResNet34, 50 epochs; 70-78 % accuracy, MPCA 0.65-0.75, 3-4 h, 5 GB",
        {"backbone_name": "resnet34", "batch_size": 12, "learning_rate": 5e-5, "epochs": 50},
    ),
    Preset(
        "resnet50",
        "best accuracy, more GPU memory: ResNet50, 40 epochs; 75-82 % accuracy, MPCA 0.70-0.80, 4-6 h, 8 GB",
        {
            "backbone_name": "resnet50",
            "visual_feature_dim": 512,
            "batch_size": 8,
            "learning_rate": 5e-5,
            "epochs": 40,
        },
    ),
    Preset("debug", "for debugging: every 10th frame, 5 epochs", _DEBUG),
    Preset("test", "faster than debug: every 10th frame, 2 epochs", {**_DEBUG, "epochs": 2, "batch_size": 2}),
)


def preset(name: str) -> Preset:
    """The preset called `name`. Raises ConfigError if there is none; the message lists the names."""
    presets = {item.name: item for item in PRESETS}
    if name not in presets:
        near = get_close_matches(name, presets, n=1)
        suggestion = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown preset {name!r}; choose one of {', '.join(presets)}{suggestion}")
    return presets[name]
