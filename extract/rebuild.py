"""Makes a lost or damaged STORE.json anew, from what the shards say of themselves and the data they were made from."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import IntegrityError, MismatchError
from configs.extraction_config import PERSONS
from extract.jrdb import scene_digests
from extract.plan import crop_recipe, describe, make_recipe, plan_units, unit_crops
from extract.weights import IMAGENET, NONE, RANDOM, LoadedBackbone, load_backbone
from store.commit import storage_errors
from store.lock import locked
from store.manifest import NAME, Manifest, Selection, Unit, shard_files, write_manifest
from store.recipe import Recipe
from store.shard import read_shard

_READ: dict[Any, Callable[[str], Any]] = {str: str, int: int, float: float}  # a field of the recipe from its text


@dataclass(frozen=True)
class _Remains:
    """What the sound shards of a store say."""

    recipe: Recipe
    digests: frozenset[str]  # of their units
    step: int  # the greatest number that divides all their frames' indices


def rebuild_manifest(store: Path, data_path: Path, weights: str = "") -> None:
    """Publishes an unfinished STORE.json for the shards in folder `store`; the old one goes to quarantine/.

    Args:
        weights: "" for those that need no file, or the file that holds the backbone's.

    Raises:
        IntegrityError: no shard is left that could say what the store was.
        MismatchError: data or weights are not those that the shards were made from.
        DataError, WeightsError, LockedError, StorageError: data, weights or the store cannot be used.
    """
    remains = _remains(store)
    loaded = _weights_of(remains.recipe, weights)
    selection, units = _plan_of(remains, data_path)
    source = NONE if loaded is None else loaded.source
    plan = Manifest(remains.recipe, selection, scene_digests(data_path), units, source)
    with locked(store / ".lock"), storage_errors(store):
        (store / ".tmp").mkdir(exist_ok=True)
        if (store / NAME).exists():
            (store / "quarantine").mkdir(exist_ok=True)
            (store / NAME).rename(store / "quarantine" / NAME)
        write_manifest(store, plan)


def _remains(store: Path) -> _Remains:
    recipes, digests, step = set(), set(), 0
    for path in shard_files(store):
        try:
            shard = read_shard(path)
        except IntegrityError:  # it will be moved aside and computed again
            continue
        recipes.add(shard.attributes.get("recipe", ""))
        digests.add(shard.attributes.get("digest", ""))
        step = math.gcd(step, *np.unique(shard.frame_index).tolist())
    if len(recipes) != 1:
        raise IntegrityError(f"{store} has no {NAME}, and its shards do not say what it was; extract into another one")
    return _Remains(_recipe_of(recipes.pop(), store), frozenset(digests), step)


def _recipe_of(text: str, store: Path) -> Recipe:
    """The recipe that `store.unit_check.attributes_of` wrote as text."""
    pattern = "; ".join(f"{item.name}=(.*)" for item in fields(Recipe))
    try:
        values = re.fullmatch(pattern, text)
        if values is None:
            raise ValueError(text)
        return Recipe(*(_READ[item.type](value) for item, value in zip(fields(Recipe), values.groups(), strict=True)))
    except ValueError as error:
        raise IntegrityError(f"the shards of {store} do not say their recipe; extract into another store") from error


def _weights_of(recipe: Recipe, weights: str) -> LoadedBackbone | None:
    """The backbone of `recipe`, None for crops. Raises MismatchError where no weights at hand make that recipe."""
    if recipe == crop_recipe(recipe.crop_size):
        return None
    names = [weights] if weights else [NONE] if recipe.backbone == "hog" else [RANDOM, IMAGENET]
    differences = []
    for name in names:
        loaded = load_backbone(recipe.backbone, name)
        here = make_recipe(loaded, recipe.crop_size, recipe.dtype, recipe.views, recipe.precision)
        if here == recipe:
            return loaded
        differences = recipe.differences(here)
    raise MismatchError(
        f"the shards were made by another recipe: {'; '.join(differences)} (here: the shards, there: this command); "
        f"give the file of their weights with --weights"
    )


def _plan_of(remains: _Remains, data_path: Path) -> tuple[Selection, tuple[Unit, ...]]:
    """The selection of the data that has all the shards' units, and those units."""
    for selection in _selections(remains.step):
        planned = plan_units(data_path, selection, crops=unit_crops(remains.recipe))
        units = tuple(describe(unit, remains.recipe) for unit in planned)
        if remains.digests <= {unit.digest for unit in units}:
            return selection, units
    raise MismatchError(f"the shards were not made from the data in {data_path}; give the original with --data_path")


def _selections(step: int) -> Iterator[Selection]:
    """Those that give frames whose indices `step` divides, the sparsest first."""
    for interval in range(max(step, 1), 0, -1):
        if step % interval == 0:
            for persons in PERSONS:
                yield Selection(interval, persons)
