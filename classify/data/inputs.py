"""Opens the data of a `train` command: a store of features (extracted if missing), or crops and their tables."""

import hashlib
import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from classify.data.annotation_check import check_planned
from classify.data.crops import FrameCrops, StoredCrops
from classify.data.identity import CropInputs
from configs.errors import MismatchError, OtherDataError, SplitError
from configs.extraction_config import ExtractionConfig
from configs.resnet_stage2_config import ResNetStage2Config
from configs.splits import SPLIT_NAMES, SceneSplit
from configs.train_options import TrainOptions
from extract.annotations.jrdb import IMAGES, LABELS, read_annotations, scene_digests, scene_names
from extract.backbones.weights import LoadedBackbone
from extract.dataset import image_cache, read_dataset
from extract.images.file_cache import FileCache
from extract.images.identity import ImageIdentities
from extract.job import extract_with
from extract.recipe import feature_recipe
from extract.units.skips import check_skip_limit
from store.crops import crops_folder, open_crops
from store.format.ledger import Ledger
from store.format.manifest import SceneDigest, Selection
from store.format.recipe import CROPS, FIRST_FORMAT, check_recipe
from store.open import check_format, is_store, read_complete_manifest, read_manifest
from store.reader import store_ledger
from store.tables import Tables

_log = logging.getLogger("stage2")


def find_or_extract(config: ResNetStage2Config, options: TrainOptions, loaded: LoadedBackbone) -> tuple[Path, float]:
    """The finished store to train on, and the seconds that its extraction took in this call.

    A store given with --store is checked against the data; if the data is not on this machine, only its recipe and its
    frames are checked, and a log line says so.

    Raises:
        MismatchError: the given store has a different recipe, lacks frames or was extracted from different data.
        SplitError: a store must be extracted, and the annotations lack a class or a part of the split.
    """
    store = Path(options.store)
    if options.store and not (Path(config.data_path) / LABELS).exists():
        _check_store_recipe(store, config, loaded)
        _check_frames(store, config, "")
        _log_unchecked(config.data_path)
        return store, 0.0
    extraction = required_extraction(config, options)
    command = _extract_command(extraction)
    if options.store and is_store(store) and not options.update:
        _check_frames(store, config, command)
    try:
        summary = extract_with(extraction, loaded, check=partial(check_planned, config=config))
    except OtherDataError as error:
        remedy = f"run `{command}`, or leave out --store" if options.store else "remove that store"
        raise MismatchError(f"{error.difference}; {remedy}") from error
    return summary.store, summary.statistics.seconds["total"]


def check_ledger(store: Path, options: TrainOptions) -> Ledger:
    """The ledger of the finished store at `store`.

    Raises:
        TooManySkippedError: the store has skipped more than `options.max_skipped` allows.
    """
    ledger = store_ledger(store)
    check_skip_limit(ledger, options.max_skipped)
    return ledger


def _extract_command(extraction: ExtractionConfig) -> str:
    """The command that computes what a store lacks for `extraction`."""
    names = ("data_path", "store", "backbone", "weights", "crop_size", "frame_interval", "panorama", "persons", "views")
    default = ExtractionConfig()
    given = {name: getattr(extraction, name) for name in (*names, "dtype", "precision")}
    changed = [(name, value) for name, value in given.items() if value != getattr(default, name)]
    return " ".join(["stage2 extract", *(f"--{name} {shlex.quote(str(value))}" for name, value in changed), "--update"])


def _check_frames(store: Path, config: ResNetStage2Config, command: str) -> None:
    """Checks that a store has the frames of the run.

    Args:
        command: computes what the store lacks; "" without the data.

    Raises:
        MismatchError: it has fewer frames.
    """
    selection = read_manifest(store).selection
    if not selection.covers(Selection(config.frame_interval, "paired")):
        raise MismatchError(
            f"{store} has frame_interval {selection.frame_interval}, which lacks frames of frame_interval "
            f"{config.frame_interval}; give a --frame_interval that the store covers (a multiple of "
            f"{selection.frame_interval}), or leave out --store" + (f", or run `{command}`" if command else "")
        )


def required_extraction(config: ResNetStage2Config, options: TrainOptions) -> ExtractionConfig:
    """The extraction for training with a frozen backbone.

    A new store has only the persons in pairs, which are all that training needs. An existing store may have any dtype,
    precision and number of views, and all persons or only those in pairs: training works with each of them.
    """
    extraction = ExtractionConfig(
        data_path=config.data_path,
        store=options.store,
        backbone=config.backbone_name,
        weights=config.weights,
        crop_size=config.crop_size,
        frame_interval=config.frame_interval,
        panorama=config.panorama,
        persons="paired",
        num_workers=config.num_workers,
        device=config.device,
        max_skipped=options.max_skipped,
        update=options.update,
    )
    if not options.store or not is_store(Path(options.store)):
        return extraction
    manifest = read_manifest(Path(options.store))
    recipe = manifest.recipe
    if recipe.backbone == CROPS:
        raise MismatchError(f"{options.store} has crops but no features; give the feature store that contains it")
    persons = manifest.selection.persons
    return replace(extraction, dtype=recipe.dtype, precision=recipe.precision, views=recipe.views, persons=persons)


def _check_store_recipe(store: Path, config: ResNetStage2Config, loaded: LoadedBackbone) -> None:
    stored = read_complete_manifest(store).recipe
    loaded = replace(loaded, activation_ranges=stored.activation_ranges)
    expected = feature_recipe(loaded, config.crop_size, stored.dtype, stored.views, stored.precision, config.panorama)
    if stored.format == FIRST_FORMAT:
        expected = replace(expected, panorama=stored.panorama, format=FIRST_FORMAT)
    check_recipe(store, stored, expected, "leave out --store to extract again")


@dataclass(frozen=True)
class TrainingCrops:
    """The data of an end-to-end run."""

    tables: Tables
    crops: CropInputs
    ledger: Ledger
    images: FileCache = field(default_factory=image_cache)  # what is known of the images; saved in the run folder


def open_training_crops(
    config: ResNetStage2Config, options: TrainOptions, caches: Sequence[Path] = ()
) -> TrainingCrops:
    """The tables, and their persons' crops: from the store if --store is given, else cut from the images.

    Args:
        caches: what earlier runs have saved about images; see `extract.dataset.image_cache`.
    """
    if options.store:
        store = Path(options.store)
        stored = open_crops(store)
        _check_store_data(store, config)
        check_scene_copies(config.split, read_complete_manifest(store).scenes)
        ledger = check_ledger(crops_folder(store) or store, options)
        return TrainingCrops(stored.tables, StoredCrops(stored, config.crop_size), ledger)
    selection = Selection(config.frame_interval, "paired")
    if _has_equal_annotations(config):
        check_scene_copies(config.split, scene_digests(Path(config.data_path)))  # reads all images
    known = image_cache(caches)
    data = read_dataset(Path(config.data_path), selection, options.max_skipped, config.panorama, known=known)
    crops = FrameCrops(
        data.tables, data.image_paths, config.crop_size, panorama=config.panorama, sha256=data.image_sha256.tolist()
    )
    return TrainingCrops(data.tables, crops, data.ledger, known)


def _has_equal_annotations(config: ResNetStage2Config) -> bool:
    """Whether two scenes of the split have the same annotation file."""
    data = Path(config.data_path)
    listed = set(config.split.train + config.split.val + config.split.test)
    scenes = [name for name in scene_names(data) if name in listed]
    digests = {hashlib.sha256(read_annotations(data / LABELS / f"{name}.json")).digest() for name in scenes}
    return len(digests) < len(scenes)


def check_scene_copies(split: SceneSplit, scenes: Mapping[str, SceneDigest]) -> None:
    """Checks that no scene is a copy of a scene in another part of the split: the same annotations and images.

    Raises:
        SplitError: two parts have the same scene under two names.
    """
    first: dict[SceneDigest, tuple[str, str]] = {}  # (part of the split, scene)
    for name in SPLIT_NAMES:
        for scene in split.scenes(name):
            if scene not in scenes:
                continue
            other, copy = first.setdefault(scenes[scene], (name, scene))
            if other != name:
                raise SplitError(
                    f"the split leaks: {copy!r} in {other} and {scene!r} in {name} have the same annotations and "
                    f"images; keep one of them"
                )


def _check_store_data(store: Path, config: ResNetStage2Config) -> None:
    """Checks that a store of crops has all frames of the run, and was extracted from its data if that is present.

    Raises:
        MismatchError: the store has fewer frames, or was extracted from different data.
    """
    manifest, data = read_complete_manifest(store), Path(config.data_path)
    if manifest.format != FIRST_FORMAT and manifest.recipe.panorama != config.panorama:
        raise MismatchError(
            f"{store} was extracted with --panorama {manifest.recipe.panorama}, not {config.panorama}; give --panorama "
            f"{manifest.recipe.panorama}, or leave out --store"
        )
    _check_frames(store, config, "")
    if not all((data / part).exists() for part in (LABELS, IMAGES)):
        _log_unchecked(config.data_path)
        return
    check_format(store, manifest)
    differences = manifest.scene_differences(replace(manifest, scenes=scene_digests(data, ImageIdentities([store]))))
    if differences:
        raise MismatchError(
            f"{store} was extracted from different data: {'; '.join(differences)}; run the same `stage2 extract` with "
            f"--crops and --update, or leave out --store"
        )


def _log_unchecked(data_path: str) -> None:
    _log.info("No data under %s: the store is used without checking that it matches the data.", data_path)
