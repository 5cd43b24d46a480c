"""The metadata of an exported file: what its user needs to know about the model, as JSON texts."""

import json

from classify.inference.finished_run import trained_backbone
from classify.model.checkpoint import Checkpoint
from classify.report.results import package_versions
from configs.errors import ExportError
from configs.resnet_stage2_config import ResNetStage2Config
from configs.settings import MACHINE, names_with_role

Metadata = dict[str, str]  # name -> JSON text
INPUTS = {
    "crops": "(P, 3, S, S) uint8 RGB, cut from the frame by the recipe's padding, box_rule and interpolation",
    "boxes": "(P, 4) float32, x y width height in pixels of the frame",
    "size": "(B, 2) int64, width and height in pixels of the pair's frame",
    "people": "(B,) int64, number of people in the pair's frame",
    "a": "(B,) int64, row of the pair's first person",
    "b": "(B,) int64, row of the pair's second person",
}


def model_metadata(checkpoint: Checkpoint) -> Metadata:
    """The metadata of an exported file: classes in the order of the probabilities, crop_size, recipe, inputs, ..."""
    config = checkpoint.info.config
    machine = names_with_role(ResNetStage2Config, MACHINE)
    settings = {name: value for name, value in config.to_dict().items() if name not in machine}
    values = {
        "classes": list(config.class_names),
        "crop_size": config.crop_size,
        "recipe": trained_backbone(checkpoint),
        "inputs": INPUTS,
        "output": "probabilities (B, C) float32",
        "mode": checkpoint.info.kind,
        "config": settings,
        "versions": package_versions(),
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}


def config_from_metadata(metadata: Metadata | None) -> ResNetStage2Config:
    """The run's configuration from a file's metadata, with defaults for the settings that depend on the machine.

    Raises:
        ExportError: there is no metadata, or stage2 did not write it.
    """
    try:
        return ResNetStage2Config.from_dict(json.loads((metadata or {})["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(f"the file has no usable settings of its model ({error!r}); export the run again") from error
