"""How much may be left out before the job stops."""

from collections import Counter
from collections.abc import Collection, Iterable

import numpy as np

from configs.errors import TooManySkippedError
from extract.plan import PlannedUnit
from store.manifest import Unit

KINDS = ("frame", "person", "pair")
Reasons = Counter[tuple[str, str]]  # (kind, reason) -> count


def known_skips(units: Iterable[PlannedUnit]) -> Reasons:
    """What is known to be left out before any image is read: unusable annotations and absent images."""
    counts: Reasons = Counter()
    for unit in units:
        counts.update((item.kind, item.reason) for item in unit.skipped)
        broken = [item.frame for item in unit.skipped if item.kind == "frame"]
        missing = (unit.image_bytes < 0) & ~np.isin(unit.tables.frame_name, broken)
        counts["frame", "image_missing"] += int(missing.sum())
        counts["person", "image_missing"] += int(
            (unit.tables.frame_offset[1:] - unit.tables.frame_offset[:-1])[missing].sum()
        )
        counts["pair", "image_missing"] += int(missing[unit.tables.pair_frame].sum())
    return counts


def stored_skips(units: Iterable[Unit]) -> Reasons:
    """What committed units left out."""
    counts: Reasons = Counter()
    for unit in units:
        for kind, reasons in unit.skipped.items():
            counts.update({(kind, reason): count for reason, count in reasons.items()})
    return counts


def planned_items(units: Collection[PlannedUnit] | Collection[Unit]) -> dict[str, int]:
    """Kind -> how many items are planned."""
    return {kind: sum(getattr(unit, f"{kind}s") for unit in units) for kind in KINDS}


def check_limit(skipped: Reasons, planned: dict[str, int], limit: float) -> None:
    """Raises TooManySkippedError, with the reasons, where more than `limit` of any kind of item is left out."""
    for kind in KINDS:
        reasons = {reason: count for (of, reason), count in skipped.most_common() if of == kind and count}
        if sum(reasons.values()) > limit * planned[kind]:
            listed = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
            raise TooManySkippedError(
                f"{sum(reasons.values())} of {planned[kind]} planned {kind}s cannot be stored ({listed}), more than "
                f"--max_skipped {limit:g} allows; mend the data, or raise --max_skipped"
            )
