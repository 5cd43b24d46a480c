"""The store of crops that may lie within a feature store: a store like any other, whose features are pixels."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from store.manifest import NAME, Manifest, shard_files
from store.reader import store_info
from store.recipe import CROPS


def crops_within(store: Path) -> Path | None:
    """The store of crops of the feature store in folder `store`; None where it has none, or one just begun."""
    folder = store / CROPS
    return folder if (folder / NAME).exists() or shard_files(folder) else None


def info_with_crops(store: Path) -> dict[str, Any]:
    """`store.reader.store_info`, and that of the crops within as "crops". Raises as `store_info`."""
    crops = crops_within(store)
    return store_info(store) | ({} if crops is None else {"crops": store_info(crops)})


def crop_differences(features: Manifest, crops: Manifest) -> list[str]:
    """One text for each thing in which a store's rows are not those of the crops within it."""
    texts = replace(features, recipe=crops.recipe).differences(crops)
    if features.recipe.crop_size != crops.recipe.crop_size:
        texts.insert(0, f"crop_size {features.recipe.crop_size} here, {crops.recipe.crop_size} there")
    here, there = _stored(features), _stored(crops)
    texts += [f"{kind} stored {here[kind]} here, {there[kind]} there" for kind in here if here[kind] != there[kind]]
    return texts


def _stored(manifest: Manifest) -> dict[str, int]:
    kinds = ("frames", "persons", "pairs")
    return {kind: sum(getattr(unit, f"stored_{kind}") for unit in manifest.units) for kind in kinds}
