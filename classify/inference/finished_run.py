"""Evaluates a finished run on any split of compatible data, and loads its backbone."""

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
from classify.inference.precision_notice import log_precision
from classify.model.checkpoint import END_TO_END, Checkpoint, build_model, load_checkpoint, substate
from classify.model.losses import Objective
from classify.replacement import find_run
from classify.train.cpu_settings import threads_for_batch
from configs.errors import MismatchError, WeightsError
from configs.panorama import AUTO
from extract.backbones.hog import Hog
from extract.backbones.resnet import Backbone
from extract.backbones.weights import WITHOUT_FILE, LoadedBackbone, load_backbone, state_sha256
from extract.dataset import image_cache, read_dataset
from extract.device import pick_device
from extract.recipe import feature_recipe
from extract.units.skips import check_skip_limit
from store.format.manifest import Manifest, Selection
from store.format.recipe import check_recipe
from store.open import read_complete_manifest
from store.reader import StoredFeatures, store_ledger
from store.tables import Features, Tables


def evaluate_on_store(run: Path, store: Path, split: str, device: str, max_skipped: float = 0.01) -> dict[str, Any]:
    """Evaluates the run in folder `run` on a split of a feature store; see `classify.evaluate.metrics.evaluate`.

    Raises:
        MismatchError: the store's features come from a different backbone, or it lacks frames of the run.
        TooManySkippedError: the store has skipped more than `max_skipped` allows of the split's scenes.
        CheckpointError, StoreError, SplitError.
    """
    checkpoint = load_checkpoint(find_run(run).best_model)
    config, manifest = checkpoint.info.config, read_complete_manifest(store)
    identity = manifest.recipe.identity()
    check_backbone(checkpoint, identity)
    check_frames(checkpoint, manifest, run, store)
    ledger = store_ledger(store, config.split.scenes(split))
    check_skip_limit(ledger, max_skipped)
    log_precision(checkpoint, manifest.recipe.precision)
    torch_device = pick_device(device)
    features = open_features(store, torch_device, checkpoint.info.config.feature_memory)
    metrics = evaluate_features(checkpoint, features, identity, split=split, device=torch_device)
    return metrics | {"class_names": list(config.class_names), "data": ledger.to_dict()}


def evaluate_features(
    checkpoint: Checkpoint,
    features: Features | StoredFeatures,
    backbone: dict[str, Any],
    *,
    split: str,
    device: torch.device,
) -> dict[str, Any]:
    """Evaluates a checkpoint on the features of a store; see `classify.evaluate.metrics.evaluate`.

    Args:
        backbone: `Recipe.identity` of the store.

    Raises:
        MismatchError: the features come from a different backbone; the message names the fields that differ.
        SplitError: the split has no pair in the store. CheckpointError: the tensors do not fit.
    """
    check_backbone(checkpoint, backbone)
    samples = select_split(features.tables, checkpoint.info.config, split)
    on_device = features_on_device(features, device, checkpoint.info.config.feature_memory)
    batch_size = checkpoint.info.config.batch_size
    source = on_device.source(features.tables, samples, batch_size)
    with threads_for_batch(batch_size):
        return _evaluate(checkpoint, nn.Identity(), source, split, device)


def evaluate_on_images(
    run: Path,
    data_path: Path,
    split: str,
    device: str,
    weights: str = "",
    max_skipped: float = 0.01,
    panorama: str | None = None,
) -> dict[str, Any]:
    """Evaluates the run in folder `run` on a split of a JRDB-format folder, from its images.

    Args:
        panorama: see `configs.panorama.edges_touch`; None: as in training.

    Raises:
        MismatchError: the run was trained with different weights. CheckpointError, DataError, SplitError.
    """
    checkpoint = load_checkpoint(find_run(run).best_model)
    log_precision(checkpoint)
    panorama = panorama or checkpoint.info.config.panorama
    config, known = checkpoint.info.config, image_cache([find_run(run).images])
    selection, scenes = Selection(config.frame_interval, "paired"), config.split.scenes(split)
    dataset = read_dataset(data_path, selection, max_skipped, panorama, scenes=scenes, known=known)
    backbone = load_run_backbone(run, checkpoint, weights).backbone
    metrics = evaluate_crops(
        checkpoint,
        dataset.tables,
        dataset.image_paths,
        backbone,
        split=split,
        device=pick_device(device),
        panorama=panorama,
    )
    return metrics | {"class_names": list(config.class_names), "data": dataset.ledger.to_dict()}


def evaluate_crops(
    checkpoint: Checkpoint,
    tables: Tables,
    image_paths: Sequence[Path],
    backbone: Backbone | Hog,
    *,
    split: str,
    device: torch.device,
    panorama: str = AUTO,
) -> dict[str, Any]:
    """Evaluates a checkpoint on images; see `classify.evaluate.metrics.evaluate`.

    Args:
        image_paths: (F,) the image of each frame of `tables`.
        backbone: of the run's architecture; an end-to-end run replaces its weights, a cached run uses them.

    Raises:
        SplitError: the split has no pair in the data. CheckpointError: the tensors do not fit.
        FrameError: an image cannot be read.
    """
    config = checkpoint.info.config
    samples = select_split(tables, config, split)
    crops = FrameCrops(tables, image_paths, config.crop_size, panorama=panorama)
    source = CropSource(tables, crops, samples, config, device=device)
    return _evaluate(checkpoint, backbone, source, split, device)


def _evaluate(
    checkpoint: Checkpoint, backbone: nn.Module, source: Source, split: str, device: torch.device
) -> dict[str, Any]:
    model = build_model(checkpoint, backbone).to(device)
    objective = Objective.from_config(checkpoint.info.config, checkpoint.info.class_weight, device)
    return evaluate(model, source, objective, split)


def check_frames(checkpoint: Checkpoint, manifest: Manifest, run: Path, store: Path) -> None:
    """Raises MismatchError unless the store has all frames of the run; the message names both frame intervals."""
    interval = checkpoint.info.config.frame_interval
    if not manifest.selection.covers(Selection(interval, "paired")):
        raise MismatchError(
            f"{store} has frame_interval {manifest.selection.frame_interval}, but {run} was trained with "
            f"frame_interval {interval}: the store lacks frames of the run; give a store that has them, or --data_path"
        )


def check_backbone(checkpoint: Checkpoint, backbone: dict[str, Any]) -> None:
    """Raises MismatchError unless the checkpoint's head fits features of the recipe identity `backbone`."""
    check_recipe("the run", trained_backbone(checkpoint), backbone, "use features of the run's own recipe")


def trained_backbone(checkpoint: Checkpoint) -> dict[str, Any]:
    """The recipe identity of the backbone that the head fits; an end-to-end run has its own fine-tuned weights."""
    if checkpoint.info.kind != END_TO_END:
        return checkpoint.info.backbone
    return checkpoint.info.backbone | {"weights_sha256": state_sha256(substate(checkpoint.model, "backbone.resnet."))}


def load_run_backbone(run: Path, checkpoint: Checkpoint, weights: str = "") -> LoadedBackbone:
    """The frozen backbone of a run: fine-tuned by an end-to-end run, else as the run's features were extracted.

    Args:
        weights: path of the weights if they have moved; "": the weights in the run's configuration.

    Raises:
        WeightsError: the weights cannot be loaded. MismatchError: the run was trained with different weights.
    """
    config = checkpoint.info.config
    if checkpoint.info.kind == END_TO_END:
        return load_backbone(config.backbone_name, str(find_run(run).best_model))
    loaded = load_backbone(config.backbone_name, weights) if weights else _recorded_backbone(run, checkpoint)
    identity = feature_recipe(loaded, config.crop_size, "float32", 1, "float32").identity()
    check_recipe(run, checkpoint.info.backbone, identity, "give the run's own weights with --weights")
    return loaded


def _recorded_backbone(run: Path, checkpoint: Checkpoint) -> LoadedBackbone:
    """The backbone with the weights that the run's configuration names.

    These may be a path, which nobody has typed if the run is from elsewhere. It is opened only as a regular file with
    tensors, and its tensors are refused by the caller unless they have the sha256 that the run was trained with.

    Raises:
        WeightsError: the weights cannot be loaded; the message names the sha256 that is needed.
    """
    config = checkpoint.info.config
    try:
        return load_backbone(config.backbone_name, config.weights)
    except WeightsError as error:
        if config.weights in WITHOUT_FILE:
            raise
        wanted = str(checkpoint.info.backbone.get("weights_sha256", "unknown"))[:64]
        raise WeightsError(
            f"{run} was trained with the weights {config.weights}, which cannot be used; give the file whose tensors "
            f"have the sha256 {wanted} with --weights"
        ) from error
