"""What an exported classifier says of itself: plain text under a few names, inside the file."""

import json

from classify.checkpoint import Checkpoint
from classify.evaluate_run import trained_backbone
from classify.results import versions
from configs.errors import ExportError
from configs.resnet_stage2_config import ResNetStage2Config

Card = dict[str, str]
_OF_THE_MACHINE = ("data_path", "checkpoint_dir", "weights", "device", "num_workers")
INPUTS = {
    "crops": "(P, 3, S, S) uint8 RGB, cut from the frame by the recipe's padding, box_rule and interpolation",
    "boxes": "(P, 4) float32, x y width height in pixels of the frame",
    "size": "(B, 2) int64, width and height in pixels of the pair's frame",
    "people": "(B,) int64, how many people the pair's frame has",
    "a": "(B,) int64, the row of the pair's one person",
    "b": "(B,) int64, the row of the other",
}


def card_of(checkpoint: Checkpoint) -> Card:
    """JSON texts (a crop size too is one): classes in the order of the probabilities, crop_size, recipe, ..."""
    config = checkpoint.about.config
    settings = {name: value for name, value in config.to_dict().items() if name not in _OF_THE_MACHINE}
    values = {
        "classes": [pair_class.name for pair_class in config.classes],
        "crop_size": config.crop_size,
        "recipe": trained_backbone(checkpoint),
        "inputs": INPUTS,
        "output": "probabilities (B, C) float32",
        "mode": checkpoint.about.kind,
        "config": settings,
        "versions": versions(),
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}


def config_of(card: Card | None) -> ResNetStage2Config:
    """The run's settings out of a card, those of its machine left at their defaults.

    Raises:
        ExportError: there is no card, or it is none of this product.
    """
    try:
        return ResNetStage2Config.from_dict(json.loads((card or {})["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(f"the file says nothing of its model's settings ({error!r}); export the run again") from error
