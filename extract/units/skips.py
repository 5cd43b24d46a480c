"""Counts the frames, persons and pairs that cannot be stored, and stops a job that skips too many."""

from collections import Counter
from collections.abc import Iterable

import numpy as np

from configs.errors import TooManySkippedError
from extract.annotations.objects import MISSING_PARTNER
from extract.units.plan import PlannedUnit
from store.format.manifest import Unit
from store.format.shard import Skipped
from store.tables import AXES, persons_per_frame

SkipCounts = Counter[tuple[str, str]]  # (kind, reason) -> count


def count_skipped(items: Iterable[Skipped]) -> SkipCounts:
    """Counts skipped items by kind and reason."""
    return Counter((item.kind, item.reason) for item in items)


def count_skipped_before_reading(units: Iterable[PlannedUnit]) -> SkipCounts:
    """Counts what will be skipped for sure before any image is read: unusable annotations and missing images."""
    counts: SkipCounts = Counter()
    for unit in units:
        counts.update(count_skipped(unit.skipped))
        unusable = [item.frame for item in unit.skipped if item.kind == "frame"]
        missing = (unit.image_bytes < 0) & ~np.isin(unit.tables.frame_name, unusable)
        counts["frame", "image_missing"] += int(missing.sum())
        counts["person", "image_missing"] += int(persons_per_frame(unit.tables)[missing].sum())
        counts["pair", "image_missing"] += int(missing[unit.tables.pair_frame].sum())
    return counts


def count_skipped_in_store(units: Iterable[Unit]) -> SkipCounts:
    """Counts what finished units skipped, from their entries in STORE.json."""
    counts: SkipCounts = Counter()
    for unit in units:
        for kind, reasons in unit.skipped.items():
            counts.update({(kind, reason): count for reason, count in reasons.items()})
    return counts


def count_planned(units: Iterable[PlannedUnit]) -> dict[str, int]:
    """Returns the number of planned items of each kind."""
    planned = dict.fromkeys(AXES, 0)
    for unit in units:
        for kind, count in zip(AXES, (unit.frames, unit.persons, unit.pairs), strict=True):
            planned[kind] += count
    return planned


def check_skip_limit(skipped: SkipCounts, units: Iterable[PlannedUnit], limit: float) -> None:
    """Raises TooManySkippedError if more than the share `limit` of the planned frames, persons or pairs is skipped.

    Pairs whose partner is not annotated in the frame are normal in JRDB and do not count.
    """
    for kind, planned in count_planned(units).items():
        reasons = {
            reason: count
            for (of, reason), count in skipped.most_common()
            if of == kind and reason != MISSING_PARTNER and count
        }
        total = sum(reasons.values())
        if total > limit * planned:
            counts = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
            raise TooManySkippedError(
                f"{total} of {planned} planned {kind}s cannot be stored ({counts}), more than --max_skipped {limit:g} "
                f"allows; fix the data, or raise --max_skipped"
            )
