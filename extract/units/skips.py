"""The ledger of planned units, before and after their images are read; stops a job that skips too many items."""

from collections.abc import Iterable, Mapping

import numpy as np

from configs.errors import TooManySkippedError
from extract.annotations.jrdb import IMAGES
from extract.units.plan import PlannedUnit
from store.format.ledger import Ledger
from store.format.shard import Shard, Skipped
from store.tables import AXES, FRAME, PAIR, PERSON, frame_of_person

_BOX = "a box [x, y, width, height] of four finite numbers, in pixels"
_IMAGE = "a complete JPEG, or a PNG with 8 bits per channel, of at most 88 million pixels"
_EXPECTED = {  # reason -> what a usable item has
    "frame_format": "a list of objects",
    "bad_frame_name": "the name of an image file",
    "object_format": 'an object with "label_id" and "box"',
    "bad_id": 'a label_id "pedestrian:NUMBER"',
    "duplicate_person": "each person once in a frame",
    "box_format": _BOX,
    "box_type": _BOX,
    "box_not_finite": _BOX,
    "box_inverted": "a width and a height above 0",
    "box_zero_area": "a width and a height above 0",
    "box_huge": "coordinates of at most a million pixels",
    "box_outside": "a box inside its image",
    "pair_format": '{"pair": "pedestrian:NUMBER", "inter_labels": {LABEL: LEVEL of at least 1}}',
    "self_pair": "two different persons",
    "partner_skipped": "two usable persons",
    "image_missing": f"an image file {IMAGES}/SCENE/FRAME",
    "image_changed": "an image that does not change during the job",
    "image_outside": f"an image inside {IMAGES}",
    "image_not_a_file": "a regular file",
}


def ledger_before_reading(units: Iterable[PlannedUnit]) -> Ledger:
    """The ledger before any image is read: unusable annotations and missing images are skipped for sure."""
    return sum((_unit_before_reading(unit) for unit in units), Ledger.empty())


def _unit_before_reading(unit: PlannedUnit) -> Ledger:
    tables = unit.tables
    names = tables.frame_name.tolist()
    unusable = {item.frame for item in unit.skipped if item.kind == FRAME}
    missing = (unit.image_bytes < 0) & ~np.isin(tables.frame_name, list(unusable))

    def image_missing(kind: str, frame: int, item: str = "") -> Skipped:
        return Skipped(kind, unit.scene, names[frame], item, "image_missing")

    items = list(unit.skipped) + [image_missing(FRAME, frame) for frame in np.flatnonzero(missing).tolist()]
    frame_of = frame_of_person(tables)
    items += [image_missing(PERSON, int(frame_of[row])) for row in np.flatnonzero(missing[frame_of]).tolist()]
    items += [image_missing(PAIR, int(frame)) for frame in tables.pair_frame[missing[tables.pair_frame]].tolist()]
    planned = count_planned([unit])
    used = {kind: planned[kind] - sum(item.kind == kind for item in items) for kind in AXES}
    return Ledger.of_items(planned, used, items)


def shard_ledger(unit: PlannedUnit, shard: Shard) -> Ledger:
    """The ledger of a unit whose rows are in `shard`."""
    used = {FRAME: len(shard.frame_name), PERSON: len(shard.box), PAIR: len(shard.pair)}
    return Ledger.of_items(count_planned([unit]), used, shard.skipped)


def count_planned(units: Iterable[PlannedUnit]) -> dict[str, int]:
    """Returns the number of planned items of each kind."""
    planned = dict.fromkeys(AXES, 0)
    for unit in units:
        for kind, count in zip(AXES, (unit.frames, unit.persons, unit.pairs), strict=True):
            planned[kind] += count
    return planned


def check_skip_limit(ledger: Ledger, limit: float, planned: Mapping[str, int] | None = None) -> None:
    """Checks that at most the share `limit` of the planned frames, persons and pairs is damaged.

    Pairs whose partner is not annotated in the frame are normal in JRDB and do not count.

    Args:
        planned: the planned items of the whole job, if `ledger` is that of a part of it.

    Raises:
        TooManySkippedError: more is damaged; the message has the first example of each reason.
    """
    for kind, count in (planned or ledger.planned).items():
        reasons = ledger.reasons(kind)
        total = sum(reasons.values())
        if total > limit * count:
            counts = ", ".join(f"{reason} {number}" for reason, number in reasons.items())
            examples = "".join(f"; {_example(ledger, reason)}" for reason in reasons if reason in ledger.examples)
            raise TooManySkippedError(
                f"{total} of {count} planned {kind}s cannot be used ({counts}), more than --max_skipped {limit:g} "
                f"allows{examples}; fix the data, or raise --max_skipped"
            )


def _example(ledger: Ledger, reason: str) -> str:
    expected = expectation(reason)
    return f"first {reason}: {ledger.examples[reason].text()}" + (f", expected {expected}" if expected else "")


def expectation(reason: str) -> str:
    """Returns what a usable item has where an item with `reason` has something else; "" for other reasons."""
    return _EXPECTED.get(reason, _IMAGE if reason.startswith("image_") else "")
