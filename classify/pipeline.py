"""The whole way of one `train` command: data -> store (extracted where there is none) -> run; or images -> run."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from classify.checkpoint import BEST, END_TO_END, load
from classify.crop_batches import FrameCrops, StoredCrops
from classify.distributed import joined
from classify.evaluate_run import check_backbone
from classify.person_cache import PersonSource
from classify.run import train_end_to_end, train_heads
from classify.run_folder import check_run_folder
from classify.run_parts import Run
from classify.seeds import train_seeds
from classify.streamed import open_features
from configs.errors import ConfigError, MismatchError
from configs.extraction_config import ExtractionConfig
from configs.ranks import ranks, restarts
from configs.resnet_stage2_config import ResNetStage2Config
from extract.dataset import read_dataset
from extract.device import pick_device
from extract.job import extract_with
from extract.jrdb import IMAGES, LABELS, scene_digests
from extract.plan import make_recipe
from extract.weights import LoadedBackbone, load_backbone, load_resnet
from store.crop_reader import open_crops
from store.manifest import Manifest, Selection, is_store, read_complete_manifest, read_manifest
from store.reader import skipped_counts
from store.recipe import CROPS
from store.tables import Tables

_log = logging.getLogger("stage2")
_OF_THE_TRAINING = {
    *("freeze_backbone", "epochs", "batch_size", "learning_rate", "patience", "checkpoint_dir", "device"),
    *("batchnorm", "freeze_blocks", "backbone_lr", "layer_decay", "augment"),
    *("amp", "accumulate", "checkpointing", "crop_cache"),
}


@dataclass(frozen=True)
class TrainOptions:
    """What a `train` command says beside the run's configuration."""

    store: str = ""  # "": found by its fingerprint under stores/, extracted where there is none; end to end: images
    max_skipped: float = 0.01
    seeds: int = 1
    overwrite: bool = False
    resume: bool = False  # go on after last.pth in checkpoint_dir, where there is one
    start: str = ""  # end to end: the folder of a finished run to start from


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
    about = load(run / BEST).about
    values = about.config.to_dict()
    settings = {name: value for name, value in values.items() if name not in _OF_THE_TRAINING}
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
    tables, crops = _people(config, options)
    identity = make_recipe(loaded, config.crop_size, "float32", 1, "float32").identity()
    start = load(Path(options.start) / BEST) if options.start else None
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


def _people(config: ResNetStage2Config, options: TrainOptions) -> tuple[Tables, PersonSource]:
    """Tables, and the crops of their people: those in the store where one is given, else cut from the images."""
    if options.store:
        stored = open_crops(Path(options.store))
        _check_data(Path(options.store), config)
        return stored.tables, StoredCrops(stored, config.crop_size)
    selection = Selection(config.frame_interval, "paired")
    dataset = read_dataset(Path(config.data_path), selection, options.max_skipped)
    return dataset.tables, FrameCrops(dataset.tables, dataset.image_paths, config.crop_size)


def _check_data(store: Path, config: ResNetStage2Config) -> None:
    """Whether the crops are all that the run needs, and of its data where that is on this machine.

    Raises:
        MismatchError: they are of fewer frames, or of other data.
    """
    manifest, data = read_complete_manifest(store), Path(config.data_path)
    if not manifest.selection.serves(Selection(config.frame_interval, "paired")):
        raise MismatchError(
            f"{store} has every {manifest.selection.frame_interval}. frame, wanted is every {config.frame_interval}.; "
            f"give a --frame_interval that it holds, or leave out --store"
        )
    if not all((data / part).exists() for part in (LABELS, IMAGES)):
        _log.info("No data under %s: the store is taken with the data that it was made from.", data)
        return
    differences = manifest.scene_differences(replace(manifest, scenes=scene_digests(data)))
    if differences:
        raise MismatchError(
            f"{store} was made from other data: {'; '.join(differences)}; run the same `stage2 extract` with --crops "
            f"and --update, or leave out --store"
        )


def _with_seeds(
    config: ResNetStage2Config, options: TrainOptions, train: Callable[[list[ResNetStage2Config]], list[Run]]
) -> Run:
    """One run, or one for each seed."""
    if options.seeds == 1:
        return train([config])[0]
    return train_seeds(config, options.seeds, train, overwrite=options.overwrite, resume=options.resume)


def find_or_extract(config: ResNetStage2Config, options: TrainOptions, loaded: LoadedBackbone) -> tuple[Path, float]:
    """The finished store that the run is to train on, and the seconds that its extraction took now.

    A store that is handed over is checked against the data; where the data is not on this machine, against the
    recipe alone, which is said.

    Raises:
        MismatchError: the store that was handed over is of another recipe or other data.
    """
    if options.store and not (Path(config.data_path) / LABELS).exists():
        _check_recipe(Path(options.store), config, loaded)
        _log.info("No data under %s: the store is taken with the data that it was made from.", config.data_path)
        return Path(options.store), 0.0
    summary = extract_with(extraction_of(config, options), loaded)
    return summary.store, summary.tally.seconds["total"]


def extraction_of(config: ResNetStage2Config, options: TrainOptions) -> ExtractionConfig:
    """The extraction that a frozen run needs. A store of another storage type or of two views is used as it is."""
    wanted = ExtractionConfig(
        data_path=config.data_path,
        store=options.store,
        backbone=config.backbone_name,
        weights=config.weights,
        crop_size=config.crop_size,
        frame_interval=config.frame_interval,
        num_workers=config.num_workers,
        device=config.device,
        max_skipped=options.max_skipped,
    )
    if options.store and is_store(Path(options.store)):
        return _as_stored(wanted, read_manifest(Path(options.store)))
    return wanted


def _as_stored(wanted: ExtractionConfig, manifest: Manifest) -> ExtractionConfig:
    """Storage type, precision, views and persons are what the store has: training takes them as they are."""
    recipe, selection = manifest.recipe, manifest.selection
    if recipe.backbone == CROPS:
        raise MismatchError(f"{wanted.store} holds crops and no features; give the store that it lies in")
    return replace(
        wanted, dtype=recipe.dtype, precision=recipe.precision, views=recipe.views, persons=selection.persons
    )


def _check_recipe(path: Path, config: ResNetStage2Config, loaded: LoadedBackbone) -> None:
    stored = read_complete_manifest(path).recipe
    wanted = make_recipe(loaded, config.crop_size, stored.dtype, stored.views, stored.precision)
    differing = stored.differences(wanted)
    if differing:
        raise MismatchError(f"{path} was made by another recipe: {'; '.join(differing)} (here: the store)")
