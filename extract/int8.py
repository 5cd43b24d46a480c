"""Prepares an int8 extraction: finds or measures the activation ranges, and measures the error of the features."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.errors import DataError, StoreError
from configs.extraction_config import ExtractionConfig
from extract.backbones.forward import Forward, frozen_forward
from extract.backbones.int8 import check_int8, int8_forward
from extract.backbones.int8_graph import RangeObserver, Ranges, merge_ranges
from extract.backbones.weights import LoadedBackbone
from extract.device import pick_device
from extract.recipe import feature_recipe
from extract.units.plan import PlannedUnit
from extract.units.sample import sample_crops
from extract.units.workers import single_threaded_pool
from store.find import STORES
from store.format.int8_record import Int8Record
from store.format.manifest import Manifest, SceneDigest
from store.format.recipe import INT8
from store.open import is_store, read_manifest

MAX_ERROR = 0.25  # largest mean error of the features, as a share of their length, that is accepted
_BATCH = 32
_log = logging.getLogger("stage2")


def known_ranges(config: ExtractionConfig, loaded: LoadedBackbone, scenes: dict[str, SceneDigest]) -> LoadedBackbone:
    """`loaded` with the activation ranges and the record of the store that this extraction continues, if there is one.

    That is the store given with --store, or else a store in STORES that has a scene of the data in common. Its recipe
    must be the same except for the ranges. Thus extended, resumed and repaired stores keep their ranges.

    Args:
        scenes: of the data.
    """
    paths = [Path(config.store)] if config.store else sorted([*STORES.glob("*.store"), *STORES.glob("*.h5")])
    for path in paths:
        manifest = _read(path)
        if manifest is None or manifest.recipe.precision != INT8:
            continue
        candidate = replace(loaded, activation_ranges=manifest.recipe.activation_ranges, int8=manifest.int8)
        views, dtype = manifest.recipe.views, manifest.recipe.dtype
        recipe = feature_recipe(candidate, config.crop_size, dtype, views, INT8, config.panorama)
        shared = set(manifest.scenes.values()) & set(scenes.values())
        if manifest.recipe == recipe and (config.store or shared):
            return candidate
    return loaded


def _read(path: Path) -> Manifest | None:
    try:
        return read_manifest(path) if is_store(path) else None
    except StoreError:  # the extraction itself reports it if it matters
        return None


def calibrate(units: list[PlannedUnit], config: ExtractionConfig, loaded: LoadedBackbone) -> LoadedBackbone:
    """`loaded` with activation ranges, unless it has some, and with the measured error of int8 features of `units`.

    Raises:
        DataError: the error is above MAX_ERROR; or too few people have usable images, see `sample_crops`.
        ConfigError, DeviceError: see `check_int8`.
    """
    device = pick_device(config.device)
    backbone = check_int8(loaded.backbone, device)
    calibration, held_out = sample_crops(units, config)
    ranges = loaded.activation_ranges
    if not ranges:
        ranges = _observe(RangeObserver(backbone), calibration)
        _log.info("int8: activation ranges measured on %s people", len(calibration))
    forwards = int8_forward(backbone, device, ranges), frozen_forward(backbone, config.crop_size, device, "float32")
    record = Int8Record.measure(*(_features(forward, held_out) for forward in forwards))
    _log.info("int8 features %s", record)
    if not record.error_mean <= MAX_ERROR:  # `not` also catches NaN
        raise DataError(
            f"int8 features of {loaded.backbone.name} differ from float32 by {record.error_mean:.0%} of their length "
            f"on average, more than {MAX_ERROR:.0%}; use --precision float32"
        )
    return replace(loaded, activation_ranges=ranges, int8=record)


def _observe(observer: RangeObserver, crops: Tensor) -> Ranges:
    threads = torch.get_num_threads()
    with single_threaded_pool(threads) as pool:
        ranges = merge_ranges(pool.map(observer, _batches(crops)))
    torch.set_num_threads(threads)
    return ranges


def _features(forward: Forward, crops: Tensor) -> NDArray[np.float32]:
    threads = torch.get_num_threads()
    with single_threaded_pool(threads) as pool:
        rows = [part.numpy() for part in pool.map(forward, _batches(crops))]
    torch.set_num_threads(threads)
    return np.concatenate(rows)


def _batches(crops: Tensor) -> list[Tensor]:
    """Always the same batches, so that rounding in float32 does not depend on the number of threads."""
    return [crops[start : start + _BATCH] for start in range(0, len(crops), _BATCH)]
