"""What STORE.json and a shard say about the same unit."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from configs.errors import IntegrityError
from store.format.manifest import Manifest, Unit
from store.format.paths import EXTRACT
from store.format.recipe import FIRST_FORMAT
from store.format.shard import Shard
from store.tables import Visual

_EXPONENT = 0x7C00  # of a float16; all bits set means infinite or NaN (IEEE 754)
_MAGNITUDE = 0x7FFF  # every bit but the sign
_BLOCK = 2**18  # values


def describe_stored(unit: Unit, name: str, size: int, shard: Shard, zeros: int | None = None) -> Unit:
    """The entry of `unit` in STORE.json once `shard` is stored in file `name` with `size` bytes.

    Args:
        zeros: the number of feature values that are 0; counted if None.
    """
    counts = Counter((item.kind, item.reason) for item in shard.skipped)
    skipped: dict[str, dict[str, int]] = {}
    for (kind, reason), count in sorted(counts.items()):
        skipped.setdefault(kind, {})[reason] = count
    return replace(
        unit,
        shard=name,
        bytes=size,
        stored_frames=len(shard.frame_name),
        stored_persons=len(shard.visual),
        stored_pairs=len(shard.pair),
        zeros=scan(shard.visual).zeros if zeros is None else zeros,
        skipped=skipped,
    )


def shard_attributes(plan: Manifest, unit: Unit) -> dict[str, str]:
    """The attributes that identify a shard: its recipe and the digests of its unit."""
    return {"recipe": shard_recipe(plan), "digest": unit.digest, "visual_digest": unit.visual_digest}


def shard_recipe(plan: Manifest) -> str:
    """The recipe as an attribute: JSON, or in format 1 text."""
    values = plan.recipe.to_dict()
    if plan.format == FIRST_FORMAT:
        return "; ".join(f"{name}={value}" for name, value in values.items())
    return json.dumps(values, sort_keys=True)


def check_shard_of_unit(manifest: Manifest, unit: Unit, shard: Shard, store: Path) -> None:
    """Raises IntegrityError unless `shard` belongs to `unit` and its features have the recipe's type and shape."""
    recipe = manifest.recipe
    if shard.attributes.get("digest") != unit.digest or shard.scene != unit.scene:
        raise IntegrityError(f"{store}: {unit.shard} is a shard of another store; {EXTRACT}")
    views = 1 if shard.visual_flipped is None else 2
    actual = (str(shard.visual.dtype), shard.visual.shape, views)
    if actual != (recipe.dtype, (unit.stored_persons, recipe.visual_dim), recipe.views):
        raise IntegrityError(f"{store}: {unit.shard} has other features than its recipe says; {EXTRACT}")


@dataclass(frozen=True)
class Scan:
    """The result of one pass over a shard's features."""

    zeros: int  # the number of values that are exactly 0
    finite: bool  # whether no value is NaN or infinite


def scan(rows: Visual, block: int = _BLOCK) -> Scan:
    """Counts zeros and looks for NaN and infinity in one pass over `rows`.

    float16 values are examined as integers, in blocks of `block` values that stay in the CPU's cache.
    """
    if rows.dtype != np.float16:
        finite = rows.dtype.kind != "f" or bool(np.isfinite(rows).all())
        return Scan(rows.size - int(np.count_nonzero(rows)), finite)
    bits = rows.reshape(-1).view(np.uint16)
    scratch = np.empty(min(block, bits.size), np.uint16)
    nonzero, largest = 0, 0
    for start in range(0, bits.size, block):
        part = bits[start : start + block]
        magnitude = np.bitwise_and(part, _MAGNITUDE, out=scratch[: part.size])
        nonzero += int(np.count_nonzero(magnitude))
        largest = max(largest, int(magnitude.max()))
    return Scan(bits.size - nonzero, largest < _EXPONENT)
