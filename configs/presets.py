"""The guide's presets: `stage2 run NAME`, or `python run_resnet_training.py NAME`.

The costs and accuracies are the guide's, on the full data with one GPU of its day.
"""

from dataclasses import dataclass, replace
from typing import Any

from configs.errors import ConfigError
from configs.resnet_stage2_config import ResNetStage2Config


@dataclass(frozen=True)
class Preset:
    """A named configuration and what it is for."""

    name: str
    purpose: str
    settings: dict[str, Any]  # what differs from ResNetStage2Config's defaults

    def config(self, **overrides: Any) -> ResNetStage2Config:
        """The preset's configuration; `overrides` win. Raises ConfigError."""
        return replace(ResNetStage2Config(), **{**self.settings, **overrides})


_DEBUG = {"batch_size": 4, "epochs": 5, "frame_interval": 10}

PRESETS = (
    Preset(
        "resnet18",
        "the standard, recommended: ResNet18, 50 epochs; 65-75 % accuracy, MPCA 0.60-0.70, 2-3 h, 4 GB",
        {"batch_size": 16, "learning_rate": 1e-4, "epochs": 50},
    ),
    Preset(
        "resnet18_frozen",
        "fast training on cached features: 30 epochs; 60-70 % accuracy, MPCA 0.55-0.65, seconds once extracted",
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
    Preset("debug", "debugging: few data, 5 epochs", _DEBUG),
    Preset("test", "faster still: debug with 2 epochs", {**_DEBUG, "epochs": 2, "batch_size": 2}),
)


def preset(name: str) -> Preset:
    """The preset called `name`. Raises ConfigError, the presets named, where there is none."""
    for candidate in PRESETS:
        if candidate.name == name:
            return candidate
    raise ConfigError(f"there is no preset {name!r}; choose one of {', '.join(p.name for p in PRESETS)}")
