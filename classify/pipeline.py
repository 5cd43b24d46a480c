"""The whole way of one `train` command: data -> store (extracted where there is none) -> run; or images -> run."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from classify.data.inputs import find_or_extract, open_training_crops
from classify.data.streamed import open_features
from classify.distributed import joined
from classify.inference.finished_run import check_backbone
from classify.model.checkpoint import BEST, END_TO_END, load_checkpoint
from classify.run_folder import check_run_folder
from classify.train.cached import train_heads
from classify.train.end_to_end import train_end_to_end
from classify.train.run import Run
from classify.train.seeds import train_seeds
from configs.errors import ConfigError
from configs.ranks import ranks, restarts
from configs.resnet_stage2_config import ResNetStage2Config
from configs.settings import TRAINING, names_with_role
from configs.train_options import TrainOptions
from extract.backbones.weights import LoadedBackbone, load_backbone, load_resnet
from extract.device import pick_device
from extract.units.plan import make_recipe
from store.format.manifest import read_complete_manifest
from store.reader import skipped_counts

_log = logging.getLogger("stage2")


def train(config: ResNetStage2Config, options: TrainOptions) -> Run:
    """Trains as `config` says: on cached features where the backbone is frozen, else end to end.

    Raises:
        Stage2Error: of any kind; see `train_cached`, `train_end_to_end` and `extract`.
    """
    if restarts():  # by torchrun, after a process had died
        options = replace(options, resume=True)
    if not options.resume:
        check_run_folder(config, options.overwrite)
    if ranks() == 1:
        return _train(config, options)
    _check_several(config)
    with joined(pick_device(config.device)):
        return _train(config, options)


def _check_several(config: ResNetStage2Config) -> None:
    """What several processes, as torchrun starts them, can do together. Raises ConfigError."""
    if config.freeze_backbone:
        raise ConfigError("training the head alone takes one process; start it without torchrun")
    if config.batchnorm == "train":
        raise ConfigError("with batchnorm train each process would see another batch; use --batchnorm frozen")


def _train(config: ResNetStage2Config, options: TrainOptions) -> Run:
    loaded = load_backbone(config.backbone_name, config.weights)
    if config.freeze_backbone:
        return _train_cached(config, options, loaded)
    return _train_end_to_end(config, options, loaded)


def start_settings(run: Path) -> dict[str, Any]:
    """The settings that fine-tuning takes over from a finished run: all but those of the training itself.

    Raises:
        CheckpointError: the folder holds no run.
    """
    about = load_checkpoint(run / BEST).info
    values = about.config.to_dict()
    training = names_with_role(ResNetStage2Config, TRAINING)
    settings = {name: value for name, value in values.items() if name not in training}
    return settings | ({"weights": str(run / BEST)} if about.kind == END_TO_END else {})


def _train_cached(config: ResNetStage2Config, options: TrainOptions, loaded: LoadedBackbone) -> Run:
    path, seconds = find_or_extract(config, options, loaded)
    manifest = read_complete_manifest(path)
    features = open_features(path, pick_device(config.device), config.feature_memory)
    _log.info("Features: %s (%s people, %sD)", path, f"{len(features.tables.box):,}", manifest.recipe.visual_dim)
    for reason, count in skipped_counts(manifest.units).items():
        _log.info("Skipped when the features were extracted: %s %s", f"{count:,}", reason)

    def all_of(configs: list[ResNetStage2Config]) -> list[Run]:
        return train_heads(
            features,
            configs,
            manifest.recipe.identity(),
            seconds_extract=seconds,
            overwrite=options.overwrite,
            resume=options.resume,
        )

    return _with_seeds(config, options, all_of)


def _train_end_to_end(config: ResNetStage2Config, options: TrainOptions, loaded: LoadedBackbone) -> Run:
    tables, crops = open_training_crops(config, options)
    identity = make_recipe(loaded, config.crop_size, "float32", 1, "float32").identity()
    start = load_checkpoint(Path(options.start) / BEST) if options.start else None
    if start is not None:
        check_backbone(start, identity)

    def one(config: ResNetStage2Config) -> Run:
        fresh = load_resnet(config.backbone_name, config.weights, False, config.batchnorm == "train")
        fresh.freeze_stages(config.freeze_blocks)
        fresh.checkpointing = config.checkpointing
        return train_end_to_end(
            tables,
            crops,
            fresh,
            config,
            identity,
            start=start,
            overwrite=options.overwrite,
            resume=options.resume,
        )

    return _with_seeds(config, options, lambda configs: [one(config) for config in configs])


def _with_seeds(
    config: ResNetStage2Config, options: TrainOptions, train: Callable[[list[ResNetStage2Config]], list[Run]]
) -> Run:
    """One run, or one for each seed."""
    if options.seeds == 1:
        return train([config])[0]
    return train_seeds(config, options.seeds, train, overwrite=options.overwrite, resume=options.resume)
