"""Finds the data of a `train` command: a finished store (extracted if missing), or crops and their tables."""

import logging
from dataclasses import replace
from pathlib import Path

from classify.data.crop_cache import PersonInputs
from classify.data.crops import FrameCrops, StoredCrops
from configs.errors import MismatchError
from configs.extraction_config import ExtractionConfig
from configs.resnet_stage2_config import ResNetStage2Config
from configs.train_options import TrainOptions
from extract.annotations.jrdb import IMAGES, LABELS, scene_digests
from extract.backbones.weights import LoadedBackbone
from extract.dataset import read_dataset
from extract.job import extract_with
from extract.recipe import feature_recipe
from store.crops import open_crops
from store.format.manifest import Manifest, Selection, is_store, read_complete_manifest, read_manifest
from store.format.recipe import CROPS, check_recipe
from store.tables import Tables

_log = logging.getLogger("stage2")


def open_training_crops(config: ResNetStage2Config, options: TrainOptions) -> tuple[Tables, PersonInputs]:
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
    summary = extract_with(extraction_config(config, options), loaded)
    return summary.store, summary.statistics.seconds["total"]


def extraction_config(config: ResNetStage2Config, options: TrainOptions) -> ExtractionConfig:
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
    wanted = feature_recipe(loaded, config.crop_size, stored.dtype, stored.views, stored.precision)
    check_recipe(path, stored, wanted, "leave out --store to extract again")
