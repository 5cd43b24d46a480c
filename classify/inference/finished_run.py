"""Figures of a finished run on any split of any data that fits it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from classify.data.batches import Source
from classify.data.crops import CropSource, FrameCrops
from classify.data.selection import select_split
from classify.data.streamed import features_on_device, open_features
from classify.evaluate.metrics import evaluate
from classify.model.checkpoint import BEST, END_TO_END, Checkpoint, build_model, load_checkpoint, substate
from classify.model.losses import Objective
from extract.backbones.hog import Hog
from extract.backbones.resnet import Backbone
from extract.backbones.weights import LoadedBackbone, load_backbone, state_sha256
from extract.dataset import read_dataset
from extract.device import pick_device
from extract.recipe import feature_recipe
from store.format.manifest import Selection, read_complete_manifest
from store.format.recipe import check_recipe
from store.reader import StoredFeatures
from store.tables import Features, Tables


def evaluate_features(
    checkpoint: Checkpoint,
    features: Features | StoredFeatures,
    backbone: dict[str, Any],
    *,
    split: str,
    device: torch.device,
) -> dict[str, Any]:
    """Evaluates a run's best model on a store of its backbone; see `classify.evaluate.metrics.evaluate` for the keys.

    Args:
        backbone: identity of the store's backbone, as it was given to `train_cached`.

    Raises:
        MismatchError: the store's features come from another backbone; the differing field is named.
        SplitError: the split has no pair in the store. CheckpointError: the tensors do not fit.
    """
    check_backbone(checkpoint, backbone)
    samples = select_split(features.tables, checkpoint.info.config, split)
    source = features_on_device(features, device).source(features.tables, samples, checkpoint.info.config.batch_size)
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
    """Evaluates a run's best model on images; see `classify.evaluate.metrics.evaluate` for the keys.

    Args:
        image_paths: (F,) the image of each frame of `tables`.
        backbone: of the run's architecture; an end-to-end run brings its weights, a cached run needs those given.

    Raises:
        SplitError: the split has no pair in the data. CheckpointError: the tensors do not fit.
        FrameError: an image cannot be read.
    """
    samples = select_split(tables, checkpoint.info.config, split)
    config = checkpoint.info.config
    crops = FrameCrops(tables, image_paths, config.crop_size)
    source = CropSource(tables, crops, samples, config, device=device)
    return _evaluate(checkpoint, backbone, source, split, device)


def check_backbone(checkpoint: Checkpoint, backbone: dict[str, Any]) -> None:
    """Raises MismatchError unless features of `backbone` are what the checkpoint's head was trained on."""
    check_recipe("the run", trained_backbone(checkpoint), backbone, "use features of the run's own recipe")


def trained_backbone(checkpoint: Checkpoint) -> dict[str, Any]:
    """The identity of the backbone that the checkpoint's head belongs to; of an end-to-end run, its own tensors'."""
    if checkpoint.info.kind != END_TO_END:
        return checkpoint.info.backbone
    return checkpoint.info.backbone | {"weights_sha256": state_sha256(substate(checkpoint.model, "backbone.resnet."))}


def _evaluate(
    checkpoint: Checkpoint, backbone: nn.Module, source: Source, split: str, device: torch.device
) -> dict[str, Any]:
    model = build_model(checkpoint, backbone).to(device)
    objective = Objective.from_config(checkpoint.info.config, checkpoint.info.class_weight, device)
    return evaluate(model, source, objective, split)


def evaluate_on_store(run: Path, store: Path, split: str, device: str) -> dict[str, Any]:
    """Metrics of `run` on a split of a feature store.

    Raises:
        MismatchError: the store is of another backbone than the run's. CheckpointError, StoreError, SplitError.
    """
    checkpoint = load_checkpoint(run / BEST)
    identity = read_complete_manifest(store).recipe.identity()
    where = pick_device(device)
    features = open_features(store, where, checkpoint.info.config.feature_memory)
    found = evaluate_features(checkpoint, features, identity, split=split, device=where)
    return found | {"class_names": _class_names(checkpoint)}


def evaluate_on_images(
    run: Path, data_path: Path, split: str, device: str, weights: str = "", max_skipped: float = 0.01
) -> dict[str, Any]:
    """Metrics of `run` on a split of a JRDB-format folder, from its images.

    Raises:
        MismatchError: the weights are not those that the run was trained with. CheckpointError, DataError, SplitError.
    """
    checkpoint = load_checkpoint(run / BEST)
    dataset = read_dataset(data_path, Selection(checkpoint.info.config.frame_interval, "paired"), max_skipped)
    backbone = run_backbone(run, checkpoint, weights).backbone
    found = evaluate_crops(
        checkpoint, dataset.tables, dataset.image_paths, backbone, split=split, device=pick_device(device)
    )
    return found | {"class_names": _class_names(checkpoint)}


def run_backbone(run: Path, checkpoint: Checkpoint, weights: str = "") -> LoadedBackbone:
    """The frozen backbone of a run: its own where it was trained, else the weights that it was trained on.

    Args:
        weights: "" for those that the run names; or the file where they lie now.

    Raises:
        WeightsError: they cannot be had. MismatchError: they are others.
    """
    config = checkpoint.info.config
    if checkpoint.info.kind == END_TO_END:
        return load_backbone(config.backbone_name, str(run / BEST))
    loaded = load_backbone(config.backbone_name, weights or config.weights)
    given = feature_recipe(loaded, config.crop_size, "float32", 1, "float32").identity()
    check_recipe(run, checkpoint.info.backbone, given, "give the run's own weights with --weights")
    return loaded


def _class_names(checkpoint: Checkpoint) -> list[str]:
    return list(checkpoint.info.config.class_names)
