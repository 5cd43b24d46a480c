"""Which feature store a run of a comparison uses: one that fits, one to update, or a new one."""

from dataclasses import replace
from pathlib import Path

from classify.data.inputs import required_extraction
from configs.errors import StoreError
from configs.resnet_stage2_config import ResNetStage2Config
from configs.train_options import TrainOptions
from extract.backbones.weights import load_backbone
from extract.job import requested_manifest
from store.find import find_store, is_finished
from store.format.manifest import Manifest
from store.open import is_packed, is_store, read_manifest


def choose_store(config: ResNetStage2Config, options: TrainOptions, out: Path) -> TrainOptions:
    """`options` with the store for a run with a frozen backbone.

    It is, in this order: a finished store in `out` or stores/ that fits; the store of the backbone in `out`, updated if
    its data has changed; a new store in `out` if that one has another recipe or selection, or scenes that are gone.

    Raises:
        DataError, WeightsError: the data or the weights cannot be read.
    """
    loaded = load_backbone(config.backbone_name, config.weights)
    wanted = requested_manifest(required_extraction(config, options), loaded)
    own = out / f"{config.backbone_name}.store"
    for path in (own, find_store(wanted), find_store(wanted, out)):
        if _fits(path, wanted):
            return replace(options, store=str(path))
    if not is_store(own):
        return replace(options, store=str(own))
    if _can_update(own, wanted):
        return replace(options, store=str(own), update=True)
    return replace(options, store=str(find_store(wanted, out)))


def _fits(path: Path, wanted: Manifest) -> bool:
    try:
        return is_finished(path, wanted)
    except StoreError:  # a damaged store elsewhere; `stage2 store verify` reports it
        return False


def _can_update(path: Path, wanted: Manifest) -> bool:
    """Whether `stage2 extract --update` would turn the store into `wanted`."""
    try:
        manifest = read_manifest(path)
    except StoreError:
        return False
    same = manifest.recipe == wanted.recipe and wanted.selection.covers(manifest.selection)
    return same and not is_packed(path) and set(manifest.scenes) <= set(wanted.scenes)
