"""The recipe: every setting that changes the numbers in a store, and the comparison of two recipes."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_origin

from configs.errors import IntegrityError, MismatchError
from configs.panorama import AUTO, PANORAMA, YES
from configs.schema import fits

FORMAT = 2  # of shards and STORE.json; every change to either increases it and must say how old stores are read
FIRST_FORMAT = 1  # images were identified by name and size, and every image was taken for a panorama
READABLE = (FIRST_FORMAT, FORMAT)
CROPS = "crops"  # the backbone name of a store that holds the crops' pixels
PIXEL_DTYPE = "uint8"
INT8 = "int8"
_CHOICES = {"dtype": ("float16", "float32", PIXEL_DTYPE), "views": (1, 2), "panorama": PANORAMA}
_POSITIVE = ("visual_dim", "crop_size")


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
    precision: str  # of the forward pass: "float32", "bfloat16", "float16" or "int8"
    dtype: str  # of the stored features: "float16" or "float32"; "uint8" for crops
    views: int  # 1, or 2 with the mirrored crop
    panorama: str = AUTO  # whether the edges of an image touch: "auto", "yes" or "no", see configs.panorama
    format: int = FORMAT
    # int8 only: map between layers -> its smallest and largest value, see extract.backbones.int8
    activation_ranges: dict[str, list[float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, as `format` has them."""
        values = asdict(self)
        if self.format == FIRST_FORMAT:
            del values["panorama"]
        if not self.activation_ranges:
            del values["activation_ranges"]
        return values

    def identity(self) -> dict[str, Any]:
        """The fields that a head depends on. Those of storage, rounding and the shape of images may differ."""
        free = {"dtype", "precision", "views", "panorama", "format", "activation_ranges"}
        return {name: value for name, value in self.to_dict().items() if name not in free}

    @classmethod
    def from_dict(cls, values: Any) -> "Recipe":
        """The recipe in a dict that was read from JSON.

        Raises:
            IntegrityError: a field is missing, unknown, of the wrong type or out of range; the message names it.
        """
        if not isinstance(values, dict):
            raise IntegrityError("the recipe is not a table of fields; the store is damaged")
        if values.get("format") == FIRST_FORMAT:
            values = {"panorama": YES} | values
        values = {"activation_ranges": {}} | values
        for item in fields(cls):
            value = values.get(item.name)
            kind = get_origin(item.type) or item.type
            if type(value) is not kind or not _is_possible(item.name, value):
                raise IntegrityError(f"the recipe's field {item.name} is {value!r}; the store is damaged")
        if len(values) != len(fields(cls)):
            unknown = sorted(set(values) - {item.name for item in fields(cls)})
            raise IntegrityError(f"the recipe has an unknown field {unknown[0]!r}; a newer version made the store")
        ranges = values["activation_ranges"]
        if (values["precision"] == INT8) != bool(ranges) or not fits(ranges, {str: [float]}):
            raise IntegrityError(
                "the recipe's field activation_ranges does not fit its precision; the store is damaged"
            )
        if any(len(pair) != 2 or pair[0] > pair[1] for pair in ranges.values()):
            raise IntegrityError("the recipe's field activation_ranges has an invalid range; the store is damaged")
        return cls(**values)


def _is_possible(name: str, value: Any) -> bool:
    """Whether a recipe's field can have this value, which has the right type."""
    return value in _CHOICES.get(name, (value,)) and (name not in _POSITIVE or value > 0)


AnyRecipe = Recipe | Mapping[str, Any]  # a recipe, or the dict of `Recipe.identity` that a checkpoint contains


def recipe_differences(actual: AnyRecipe, wanted: AnyRecipe) -> list[str]:
    """One text for each field that differs, for example "crop_size 112, not 224"; empty if the recipes are equal."""
    return value_differences(_as_dict(actual), _as_dict(wanted))


def value_differences(actual: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """One text for each name whose value differs, also if only one of the two has it."""
    pairs = [(name, actual.get(name, "missing"), wanted.get(name, "missing")) for name in {**actual, **wanted}]
    return [f"{name} {_brief(value)}, not {_brief(other)}" for name, value, other in pairs if value != other]


def _brief(value: Any) -> Any:
    """Tables of numbers are named by their digest."""
    return f"with digest {digest(value)[:12]}" if isinstance(value, dict) else value


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
