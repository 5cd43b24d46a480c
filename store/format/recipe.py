"""What changes the numbers in a store, and nothing else."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from configs.errors import IntegrityError

FORMAT = 1  # of shards and STORE.json; a change to either bumps it and says what becomes of old stores
CROPS = "crops"  # in a backbone's place: the pixels themselves are stored
PIXEL_DTYPE = "uint8"


@dataclass(frozen=True)
class Recipe:
    """How a crop's features are computed. Paths, batch sizes, worker counts and machines are not part of it."""

    backbone: str  # "resnet18", ...
    layer: str  # "avgpool"
    weights_sha256: str  # of the backbone's tensors, so the same weights in another file are the same
    visual_dim: int
    crop_size: int  # pixels
    padding: float  # share of the box added on each side
    box_rule: str
    interpolation: str
    normalisation: str
    precision: str  # of the forward pass: "float32", "bfloat16" or "float16"
    dtype: str  # of storage: "float16" or "float32"; "uint8" of crops
    views: int  # 1, or 2 with the mirrored crop
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def identity(self) -> dict[str, Any]:
        """What a head trained on such features must meet again; storage, precision and views are its own affair."""
        private = {"dtype", "precision", "views", "format"}
        return {name: value for name, value in self.to_dict().items() if name not in private}

    @classmethod
    def from_dict(cls, values: Any) -> "Recipe":
        """The recipe of a dict as read from JSON.

        Raises:
            IntegrityError: a field is missing, unknown or of another type; it is named.
        """
        if not isinstance(values, dict):
            raise IntegrityError("the recipe is no table of fields; the store is damaged")
        for item in fields(cls):
            value = values.get(item.name)
            if type(value) is not item.type:
                raise IntegrityError(f"the recipe's field {item.name} is {value!r}; the store is damaged")
        if len(values) != len(fields(cls)):
            unknown = sorted(set(values) - {item.name for item in fields(cls)})
            raise IntegrityError(f"the recipe has an unknown field {unknown[0]!r}; a newer version made the store")
        return cls(**values)

    def differences(self, other: "Recipe") -> list[str]:
        """One text for each field that differs: "crop_size 112 here, 224 there"."""
        mine, theirs = self.to_dict(), other.to_dict()
        return [f"{name} {mine[name]} here, {theirs[name]} there" for name in mine if mine[name] != theirs[name]]


def digest(value: Any) -> str:
    """sha256, as 64 hex digits, of a JSON value's canonical text."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
