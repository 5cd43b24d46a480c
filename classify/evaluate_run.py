"""Figures of a finished run on any split of any data that fits it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from classify.batches import Source
from classify.checkpoint import END_TO_END, Checkpoint, build_model, part
from classify.crop_batches import CropSource, FrameCrops
from classify.evaluate import evaluate
from classify.losses import Objective
from classify.selection import select_split
from classify.streamed import visual_of
from configs.errors import MismatchError
from extract.backbone import Backbone
from extract.hog import Hog
from extract.weights import state_sha256
from store.chunks import StoredFeatures
from store.tables import Features, Tables


def evaluate_features(
    checkpoint: Checkpoint,
    features: Features | StoredFeatures,
    backbone: dict[str, Any],
    *,
    split: str,
    device: torch.device,
) -> dict[str, Any]:
    """Evaluates a run's best model on a store of its backbone; see `classify.evaluate.evaluate` for the keys.

    Args:
        backbone: identity of the store's backbone, as it was given to `train_cached`.

    Raises:
        MismatchError: the store's features come from another backbone; the differing field is named.
        SplitError: the split has no pair in the store. CheckpointError: the tensors do not fit.
    """
    check_backbone(checkpoint, backbone)
    samples = select_split(features.tables, checkpoint.about.config, split)
    source = visual_of(features, device).source(features.tables, samples, checkpoint.about.config.batch_size)
    return _evaluate(checkpoint, nn.Identity(), source, split, device)


def evaluate_crops(
    checkpoint: Checkpoint,
    tables: Tables,
    image_paths: Sequence[Path],
    backbone: Backbone | Hog,
    *,
    split: str,
    device: torch.device,
) -> dict[str, Any]:
    """Evaluates a run's best model on images; see `classify.evaluate.evaluate` for the keys.

    Args:
        image_paths: (F,) the image of each frame of `tables`.
        backbone: of the run's architecture; an end-to-end run brings its weights, a cached run needs those given.

    Raises:
        SplitError: the split has no pair in the data. CheckpointError: the tensors do not fit.
        FrameError: an image cannot be read.
    """
    samples = select_split(tables, checkpoint.about.config, split)
    config = checkpoint.about.config
    crops = FrameCrops(tables, image_paths, config.crop_size)
    source = CropSource(tables, crops, samples, config, device=device)
    return _evaluate(checkpoint, backbone, source, split, device)


def check_backbone(checkpoint: Checkpoint, backbone: dict[str, Any]) -> None:
    """Raises MismatchError unless features of `backbone` are what the checkpoint's head was trained on."""
    trained = trained_backbone(checkpoint)
    for name in sorted(set(trained) | set(backbone)):
        old, new = trained.get(name, "nothing"), backbone.get(name, "nothing")
        if old != new:
            raise MismatchError(f"the run belongs to features with {name} {old}, these have {new}; use its own")


def trained_backbone(checkpoint: Checkpoint) -> dict[str, Any]:
    """The identity of the backbone that the checkpoint's head belongs to; of an end-to-end run, its own tensors'."""
    if checkpoint.about.kind != END_TO_END:
        return checkpoint.about.backbone
    return checkpoint.about.backbone | {"weights_sha256": state_sha256(part(checkpoint.model, "backbone.resnet."))}


def _evaluate(
    checkpoint: Checkpoint, backbone: nn.Module, source: Source, split: str, device: torch.device
) -> dict[str, Any]:
    model = build_model(checkpoint, backbone).to(device)
    objective = Objective.of(checkpoint.about.config, checkpoint.about.class_weight, device)
    return evaluate(model, source, objective, split)
