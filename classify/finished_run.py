"""A finished run, opened again: evaluated on a split, or put to work on new frames."""

from pathlib import Path
from typing import Any

from classify.checkpoint import BEST, END_TO_END, Checkpoint, load
from classify.evaluate_run import evaluate_crops, evaluate_features
from classify.streamed import open_features
from configs.errors import MismatchError
from extract.dataset import read_dataset
from extract.device import pick_device
from extract.plan import make_recipe
from extract.weights import LoadedBackbone, load_backbone
from store.manifest import Selection, read_complete_manifest


def evaluate_on_store(run: Path, store: Path, split: str, device: str) -> dict[str, Any]:
    """Metrics of `run` on a split of a feature store.

    Raises:
        MismatchError: the store is of another backbone than the run's. CheckpointError, StoreError, SplitError.
    """
    checkpoint = load(run / BEST)
    identity = read_complete_manifest(store).recipe.identity()
    where = pick_device(device)
    features = open_features(store, where, checkpoint.about.config.feature_memory)
    found = evaluate_features(checkpoint, features, identity, split=split, device=where)
    return found | {"class_names": _class_names(checkpoint)}


def evaluate_on_images(
    run: Path, data_path: Path, split: str, device: str, weights: str = "", max_skipped: float = 0.01
) -> dict[str, Any]:
    """Metrics of `run` on a split of a JRDB-format folder, from its images.

    Raises:
        MismatchError: the weights are not those that the run was trained with. CheckpointError, DataError, SplitError.
    """
    checkpoint = load(run / BEST)
    dataset = read_dataset(data_path, Selection(checkpoint.about.config.frame_interval, "paired"), max_skipped)
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
    config = checkpoint.about.config
    if checkpoint.about.kind == END_TO_END:
        return load_backbone(config.backbone_name, str(run / BEST))
    loaded = load_backbone(config.backbone_name, weights or config.weights)
    wanted = checkpoint.about.backbone
    given = make_recipe(loaded, config.crop_size, "float32", 1, "float32").identity()
    differing = [name for name in wanted if wanted[name] != given.get(name)]
    if differing:
        name = differing[0]
        raise MismatchError(
            f"{run} was trained on features with {name} {wanted[name]}, these have {given.get(name)}; "
            f"give the run's own with --weights"
        )
    return loaded


def _class_names(checkpoint: Checkpoint) -> list[str]:
    return [pair_class.name for pair_class in checkpoint.about.config.classes]
