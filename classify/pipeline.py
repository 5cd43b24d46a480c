"""The `train` command from end to end: data -> store (extracted if missing) -> runs; or images -> runs."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from classify.data.annotation_check import check_annotations
from classify.data.inputs import check_ledger, check_scene_copies, find_or_extract, open_training_crops
from classify.data.streamed import open_features
from classify.distributed import process_group
from classify.inference.finished_run import check_backbone
from classify.inference.precision_notice import kept_precision, log_precision
from classify.model.checkpoint import END_TO_END, load_checkpoint
from classify.open_run import check_run_folder
from classify.replacement import find_run
from classify.run_folder import ROOT, RunFolder
from classify.train.cached import train_cached
from classify.train.end_to_end import train_end_to_end
from classify.train.run import Run
from classify.train.seeds import train_seeds
from configs.errors import CheckpointError, ConfigError
from configs.ranks import restarts, world_size
from configs.resnet_stage2_config import ResNetStage2Config
from configs.settings import TRAINING, names_with_role
from configs.train_options import TrainOptions
from extract.annotations.jrdb import LABELS
from extract.backbones.weights import WITHOUT_FILE, LoadedBackbone, load_backbone, load_resnet
from extract.device import pick_device
from extract.recipe import feature_recipe
from store.open import is_store, read_complete_manifest

_log = logging.getLogger("stage2")


def train(config: ResNetStage2Config, options: TrainOptions) -> Run:
    """Trains the head on cached features if the backbone is frozen, else backbone and head end to end.

    Raises:
        Stage2Error: of any kind; see `train_cached`, `train_end_to_end` and `extract`.
    """
    if options.start and Path(config.checkpoint_dir or ".").resolve() == Path(options.start).resolve():
        raise ConfigError(f"{options.start} is the run to start from; name another folder with --checkpoint_dir")
    if restarts():  # torchrun has restarted the processes after one of them died
        options = replace(options, resume=True)
    if options.start and config.freeze_backbone:
        raise ConfigError(
            f"--from {options.start} trains backbone and head, but --freeze_backbone trains only a new head; leave out "
            f"--freeze_backbone, or run `stage2 train --freeze_backbone --backbone {config.backbone_name} --weights "
            f"{config.weights}`"
        )
    check_run_folder(config, options)
    if not options.store or _extracts_store(config, options):
        check_annotations(config)  # before weights are downloaded
    if world_size() > 1:
        _check_distributed(config)
    with process_group(pick_device(config.device)):
        loaded = load_backbone(config.backbone_name, config.weights)
        _log_weights(config, loaded)
        if config.freeze_backbone:
            return _train_cached(config, options, loaded)
        return _train_end_to_end(config, options, loaded)


def _extracts_store(config: ResNetStage2Config, options: TrainOptions) -> bool:
    """Whether --store names a store that does not exist yet, and the data is on this machine."""
    return not is_store(Path(options.store)) and (Path(config.data_path) / LABELS).exists()


def start_settings(run: Path) -> dict[str, Any]:
    """The settings that `finetune --from` reuses from a finished run: all but those of the training itself.

    Raises:
        CheckpointError: the folder holds no run.
    """
    best_model = find_run(run).best_model
    info = load_checkpoint(best_model).info
    training = names_with_role(ResNetStage2Config, TRAINING)
    settings = {name: value for name, value in info.config.to_dict().items() if name not in training}
    return settings | ({"weights": str(best_model)} if info.kind == END_TO_END else {})


def _log_weights(config: ResNetStage2Config, loaded: LoadedBackbone) -> None:
    """Logs which weights the backbone has; a fine-tuned run whose best epoch is 0 has those that it started from."""
    source, note = loaded.source, ""
    if config.weights not in WITHOUT_FILE:
        path = Path(config.weights)
        source, note = config.weights, _untrained_note(RunFolder(path).best_model if path.is_dir() else path)
    _log.info("Backbone weights: %s (sha256 %s)%s", source, loaded.sha256[:16], note)


def _untrained_note(path: Path) -> str:
    try:
        checkpoint = load_checkpoint(path)
    except CheckpointError:  # the weights are not a run's
        return ""
    if checkpoint.epoch > 0:
        return ""
    return ", from epoch 0: fine-tuning did not improve on them, so they are those that it started from"


def _train_cached(config: ResNetStage2Config, options: TrainOptions, loaded: LoadedBackbone) -> Run:
    path, seconds = find_or_extract(config, options, loaded)
    manifest = read_complete_manifest(path)
    check_scene_copies(config.split, manifest.scenes)
    features = open_features(path, pick_device(config.device), config.feature_memory)
    _log.info("Features: %s (%s people, %sD)", path, f"{len(features.tables.box):,}", manifest.recipe.visual_dim)
    ledger = check_ledger(path, options)

    def train_heads(configs: list[ResNetStage2Config], parent: RunFolder | None = None) -> list[Run]:
        return train_cached(
            features,
            configs,
            manifest.recipe.identity(),
            ledger=ledger,
            precision=kept_precision(manifest),
            step=options.step,
            seconds_extract=seconds,
            overwrite=options.overwrite,
            resume=options.resume,
            parent=parent,
        )

    if options.seeds == 1:
        return train_heads([config])[0]
    return train_seeds(config, options.seeds, train_heads, overwrite=options.overwrite, resume=options.resume)


def _train_end_to_end(config: ResNetStage2Config, options: TrainOptions, loaded: LoadedBackbone) -> Run:
    data = open_training_crops(config, options, _image_caches(config, options))
    identity = feature_recipe(loaded, config.crop_size, "float32", 1, "float32").identity()
    start = load_checkpoint(find_run(Path(options.start)).best_model) if options.start else None
    if start is not None:
        check_backbone(start, identity)
        log_precision(start)

    def train_one(config: ResNetStage2Config, parent: RunFolder | None = None) -> Run:
        backbone = load_resnet(config.backbone_name, config.weights, False, config.batchnorm == "train")
        backbone.freeze_stages(config.freeze_blocks)
        backbone.checkpointing = config.checkpointing
        return train_end_to_end(
            data.tables,
            data.crops,
            backbone,
            config,
            identity,
            ledger=data.ledger,
            images=data.images,
            start=start,
            overwrite=options.overwrite,
            resume=options.resume,
            parent=parent,
        )

    def train_all(configs: list[ResNetStage2Config], parent: RunFolder) -> list[Run]:
        return [train_one(config, parent) for config in configs]

    if options.seeds == 1:
        return train_one(config)
    return train_seeds(config, options.seeds, train_all, overwrite=options.overwrite, resume=options.resume)


def _image_caches(config: ResNetStage2Config, options: TrainOptions, newest: int = 3) -> list[Path]:
    """What earlier runs have saved about images: this run or its seeds, the run to start from, numbered runs."""
    folders = [Path(folder) for folder in (config.checkpoint_dir, options.start) if folder] + [ROOT]
    name = RunFolder(ROOT).images.name
    files = [file for folder in folders for file in (folder / name, *folder.glob(f"*/{name}")) if file.is_file()]
    return sorted(files, key=lambda file: file.stat().st_mtime)[-newest:]


def _check_distributed(config: ResNetStage2Config) -> None:
    """Raises ConfigError if several processes cannot train this run together."""
    if config.freeze_backbone:
        raise ConfigError("training the head alone takes one process; start it without torchrun")
    if config.batchnorm == "train":
        raise ConfigError("with --batchnorm train each process would see another batch; use --batchnorm frozen")
