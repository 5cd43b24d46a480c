"""The recipe: every setting that changes the numbers in a store, and the comparison of two recipes."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from configs.errors import IntegrityError, MismatchError

FORMAT = 1  # of shards and STORE.json; every change to either increases it and must say how old stores are read
CROPS = "crops"  # the backbone name of a store that holds the crops' pixels
PIXEL_DTYPE = "uint8"


@dataclass(frozen=True)
class Recipe:
    """How the features of a crop are computed. Paths, batch sizes, worker counts and devices are not part of it."""

    backbone: str  # "resnet18", ...
    layer: str  # "avgpool"
    weights_sha256: str  # of the backbone's tensors, so the same weights in another file compare equal
    visual_dim: int
    crop_size: int  # pixels
    padding: float  # fraction of the box added on each side
    box_rule: str
    interpolation: str
    normalisation: str
    precision: str  # of the forward pass: "float32", "bfloat16" or "float16"
    dtype: str  # of the stored features: "float16" or "float32"; "uint8" for crops
    views: int  # 1, or 2 with the mirrored crop
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def identity(self) -> dict[str, Any]:
        """The fields that a head depends on. dtype, precision, views and format may differ from its training."""
        free = {"dtype", "precision", "views", "format"}
        return {name: value for name, value in self.to_dict().items() if name not in free}

    @classmethod
    def from_dict(cls, values: Any) -> "Recipe":
        """The recipe in a dict that was read from JSON.

        Raises:
            IntegrityError: a field is missing, unknown or has the wrong type; the message names it.
        """
        if not isinstance(values, dict):
            raise IntegrityError("the recipe is not a table of fields; the store is damaged")
        for item in fields(cls):
            value = values.get(item.name)
            if type(value) is not item.type:
                raise IntegrityError(f"the recipe's field {item.name} is {value!r}; the store is damaged")
        if len(values) != len(fields(cls)):
            unknown = sorted(set(values) - {item.name for item in fields(cls)})
            raise IntegrityError(f"the recipe has an unknown field {unknown[0]!r}; a newer version made the store")
        return cls(**values)


AnyRecipe = Recipe | Mapping[str, Any]  # a recipe, or the dict of `Recipe.identity` that a checkpoint contains


def recipe_differences(actual: AnyRecipe, wanted: AnyRecipe) -> list[str]:
    """One text for each field that differs, for example "crop_size 112, not 224"; empty if the recipes are equal."""
    return value_differences(_as_dict(actual), _as_dict(wanted))


def value_differences(actual: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """One text for each name whose value differs, also if only one of the two has it."""
    pairs = [(name, actual.get(name, "missing"), wanted.get(name, "missing")) for name in {**actual, **wanted}]
    return [f"{name} {value}, not {other}" for name, value, other in pairs if value != other]


def check_recipe(owner: object, actual: AnyRecipe, wanted: AnyRecipe, remedy: str) -> None:
    """Raises MismatchError, with every differing field and `remedy`, unless the recipe of `owner` is `wanted`."""
    differences = recipe_differences(actual, wanted)
    if differences:
        raise MismatchError(f"{owner} has a different recipe: {'; '.join(differences)}; {remedy}")


def _as_dict(recipe: AnyRecipe) -> Mapping[str, Any]:
    return recipe.to_dict() if isinstance(recipe, Recipe) else recipe


def digest(value: Any) -> str:
    """sha256, as 64 hex digits, of the canonical JSON text of `value`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
