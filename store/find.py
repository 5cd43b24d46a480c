"""Finds a finished store that already contains what an extraction would compute."""

from dataclasses import replace
from pathlib import Path

from configs.errors import IntegrityError, StoreError
from store.format.manifest import COMPLETE, Manifest
from store.format.paths import StorePaths
from store.format.recipe import CROPS, Recipe
from store.open import PackedStore, is_store, open_store, read_manifest

STORES = Path("stores")  # where extraction puts stores, and looks for them, without --store


def find_store(plan: Manifest, folder: Path = STORES) -> Path:
    """The path of a finished store in `folder` that contains all of `plan`, or the path for a new one."""
    default = folder / f"{plan.recipe.backbone}-{plan.recipe.crop_size}px-{plan.fingerprint[:12]}.store"
    if StorePaths(default).manifest.exists():
        return default
    for path in sorted([*folder.glob("*.store"), *folder.glob("*.h5")]):
        try:
            manifest = read_manifest(path)
        except StoreError:  # skip damaged stores; `stage2 store verify` reports them
            continue
        if manifest.state == COMPLETE and manifest.covers(plan):
            return path
    return default


def stores_with_recipe(recipe: Recipe, folder: Path = STORES) -> list[Path]:
    """The stores in `folder` whose features have `recipe`, apart from the number of views; also unfinished ones."""
    stores = []
    for path in sorted([*folder.glob("*.store"), *folder.glob(f"*.store/{CROPS}")]):
        try:
            manifest = read_manifest(path)
        except StoreError:
            continue
        if replace(manifest.recipe, views=recipe.views) == recipe:
            stores.append(path)
    return stores


def is_covered(path: Path, wanted: Manifest) -> bool:
    """Whether the store at `path` is complete and contains all of `wanted`; its shards are not read."""
    if not is_store(path):
        return False
    manifest = read_manifest(path)
    return manifest.state == COMPLETE and manifest.covers(wanted)


def is_finished(path: Path, wanted: Manifest) -> bool:
    """Whether the store at `path` is complete, matches its checksums and contains all of `wanted`.

    Raises:
        IntegrityError: the store contains `wanted` but is damaged, and extracting `wanted` would not repair it: it is
            packed, or was made of more frames or persons.
    """
    if not is_store(path):
        return False
    store = open_store(path)
    if store.manifest.state != COMPLETE or not store.manifest.covers(wanted):
        return False
    damage = store.damage()
    if damage and (isinstance(store, PackedStore) or store.manifest.selection != wanted.selection):
        raise IntegrityError(f"{path} is damaged ({damage}) and this command cannot repair it; {store.remedy}")
    return not damage
