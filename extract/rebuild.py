"""Rebuilds a lost STORE.json from the shards, which contain their recipe, and the original data."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from configs.errors import IntegrityError, MismatchError
from configs.extraction_config import PERSONS
from extract.annotations.jrdb import scene_digests
from extract.backbones.hog import HOG
from extract.backbones.weights import IMAGENET, NONE, RANDOM, LoadedBackbone, load_backbone
from extract.images.identity import ImageIdentities
from extract.recipe import crop_recipe, feature_recipe
from extract.units.plan import DEFAULT_UNIT_SIZE, UnitSize, manifest_entry, plan_units
from store.files import make_folder, move_into
from store.format.manifest import Manifest, Selection, Unit, write_manifest
from store.format.paths import StorePaths
from store.format.recipe import FIRST_FORMAT, Recipe, recipe_differences
from store.format.shard_file import read_shard
from store.ownership import STORE, own_folder


def rebuild_manifest(store: Path, data_path: Path, weights: str = "", unit_size: UnitSize = DEFAULT_UNIT_SIZE) -> None:
    """Writes an unfinished STORE.json for the shards in folder `store`; moves the damaged one to quarantine/.

    Args:
        weights: file with the backbone's weights; "" if the store was made without a file.
        unit_size: as in the extraction that made the store.

    Raises:
        IntegrityError: no readable shard is left that contains the recipe.
        MismatchError: data or weights differ from those of the shards.
        DataError, WeightsError, LockedError, StorageError: data, weights or the store cannot be used.
    """
    origin = _read_origin(store)
    loaded = _find_backbone(origin.recipe, weights)
    identities = ImageIdentities()
    selection, units = _find_selection(origin, data_path, unit_size, identities)
    source = NONE if loaded is None else loaded.source
    plan = Manifest(origin.recipe, selection, scene_digests(data_path, identities), units, source)
    paths = StorePaths(store)
    with own_folder(paths.lock, STORE):
        make_folder(paths.temporary)
        if paths.manifest.exists():
            move_into(paths.manifest, paths.quarantine)
        write_manifest(store, plan)


@dataclass(frozen=True)
class _Origin:
    """What the readable shards of a store reveal about the extraction that made it."""

    recipe: Recipe
    digests: frozenset[str]  # of their units
    frame_step: int  # greatest common divisor of all frame indices: a multiple of the frame interval


def _read_origin(store: Path) -> _Origin:
    recipes, digests, frame_step = set(), set(), 0
    for path in StorePaths(store).shard_files():
        try:
            shard = read_shard(path)
        except IntegrityError:  # a damaged shard is recomputed later
            continue
        recipes.add(shard.attributes.get("recipe", ""))
        digests.add(shard.attributes.get("digest", ""))
        frame_step = math.gcd(frame_step, *np.unique(shard.frame_index).tolist())
    if len(recipes) != 1:
        raise IntegrityError(
            f"{store} has no STORE.json, and its shards do not contain a common recipe; extract into another --store"
        )
    return _Origin(_parse_recipe(recipes.pop(), store), frozenset(digests), frame_step)


def _parse_recipe(text: str, store: Path) -> Recipe:
    """Parses a shard's recipe attribute, which `store.format.units.shard_recipe` writes."""
    if text.endswith(f"format={FIRST_FORMAT}"):
        raise IntegrityError(
            f"the shards of {store} have format {FIRST_FORMAT}, for which STORE.json cannot be rebuilt; extract into "
            f"another --store"
        )
    try:
        return Recipe.from_dict(json.loads(text))
    except (ValueError, RecursionError, IntegrityError) as error:
        raise IntegrityError(f"the shards of {store} have an unknown recipe; extract into another --store") from error


def _find_backbone(recipe: Recipe, weights: str) -> LoadedBackbone | None:
    """Returns the backbone of `recipe`, None for crops. Raises MismatchError if no available weights match."""
    if recipe == crop_recipe(recipe.crop_size, recipe.panorama):
        return None
    candidates = [weights] if weights else [NONE] if recipe.backbone == HOG else [RANDOM, IMAGENET]
    differences = []
    for name in candidates:
        loaded = replace(load_backbone(recipe.backbone, name), activation_ranges=recipe.activation_ranges)
        candidate = feature_recipe(
            loaded, recipe.crop_size, recipe.dtype, recipe.views, recipe.precision, recipe.panorama
        )
        differences = recipe_differences(recipe, candidate)
        if not differences:
            return loaded
    raise MismatchError(
        f"the shards have a different recipe: {'; '.join(differences)}; give the file of their weights with --weights"
    )


def _find_selection(
    origin: _Origin, data_path: Path, unit_size: UnitSize, identities: ImageIdentities
) -> tuple[Selection, tuple[Unit, ...]]:
    """Returns the selection whose plan contains all the shards' units, and that plan. Raises MismatchError."""
    crops = unit_size.crops_for(origin.recipe)
    for selection in _possible_selections(origin.frame_step):
        planned = plan_units(data_path, selection, crops=crops, identities=identities)
        units = tuple(manifest_entry(unit, origin.recipe) for unit in planned)
        if origin.digests <= {unit.digest for unit in units}:
            return selection, units
    raise MismatchError(
        f"the shards were not made from the data in {data_path}; give the original data with --data_path"
    )


def _possible_selections(frame_step: int) -> Iterator[Selection]:
    """Yields each selection whose frame interval divides `frame_step`, the largest interval first."""
    for interval in range(max(frame_step, 1), 0, -1):
        if frame_step % interval == 0:
            for persons in PERSONS:
                yield Selection(interval, persons)
