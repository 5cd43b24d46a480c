"""A unit's description in STORE.json, derived from its shard."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from store.format.manifest import Manifest, Unit
from store.format.shard import Shard
from store.tables import Visual

_EXPONENT = 0x7C00  # of float16: all set means infinite or NaN (IEEE 754)
_MAGNITUDE = 0x7FFF  # all but the sign
_BLOCK = 2**18  # values


def committed(unit: Unit, name: str, size: int, shard: Shard) -> Unit:
    """`unit` as STORE.json describes it once `shard` is published as file `name` of `size` bytes."""
    return _counted(unit, name, size, shard, scan(shard.visual).zeros)


def _counted(unit: Unit, name: str, size: int, shard: Shard, zeros: int) -> Unit:
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
        zeros=zeros,
        skipped=skipped,
    )


def attributes_of(plan: Manifest, unit: Unit) -> dict[str, str]:
    """The attributes that say which unit of which recipe a shard is."""
    recipe = "; ".join(f"{name}={value}" for name, value in plan.recipe.to_dict().items())
    return {"recipe": recipe, "digest": unit.digest, "visual_digest": unit.visual_digest}


@dataclass(frozen=True)
class Scan:
    """What one pass over a shard's features sees."""

    zeros: int  # values that are exactly 0
    finite: bool  # no NaN and nothing infinite


def scan(rows: Visual) -> Scan:
    """One pass over `rows`; float16 by its bits, in blocks that stay in the processor's cache."""
    if rows.dtype != np.float16:
        finite = rows.dtype.kind != "f" or bool(np.isfinite(rows).all())
        return Scan(rows.size - int(np.count_nonzero(rows)), finite)
    bits = rows.reshape(-1).view(np.uint16)
    scratch = np.empty(min(_BLOCK, bits.size), np.uint16)
    nonzero, largest = 0, 0
    for start in range(0, bits.size, _BLOCK):
        block = bits[start : start + _BLOCK]
        magnitude = np.bitwise_and(block, _MAGNITUDE, out=scratch[: block.size])
        nonzero += int(np.count_nonzero(magnitude))
        largest = max(largest, int(magnitude.max()))
    return Scan(bits.size - nonzero, largest < _EXPONENT)
