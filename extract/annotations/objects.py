"""One frame's annotated objects -> its persons and pairs; what cannot be used is named, never guessed."""

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.errors import DataError
from store.format.shard import Skipped

LARGEST = 1e6  # pixels; no panorama is near it
_PERSON = re.compile(r"pedestrian:([0-9]{1,18})")


@dataclass
class FrameObjects:
    """The persons of one frame in file order, its pairs, and what was left out.

    `pairs` maps (row, row), the smaller first, to the pair's labels in alphabetical order.
    """

    scene: str
    frame: str
    ids: list[int] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)  # x y width height in pixels
    pairs: dict[tuple[int, int], tuple[str, ...]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    others: int = 0  # objects that are no pedestrians: not planned, not skipped

    def skip(self, kind: str, item: str, reason: str) -> None:
        """Notes a person or pair of this frame that cannot be used."""
        self.skipped.append(Skipped(kind, self.scene, self.frame, printable(item), reason))


def read_objects(scene: str, frame: str, objects: Any) -> FrameObjects:
    """The persons and pairs of one frame of an annotation file.

    Reasons for a person: object_format, bad_id, duplicate_person, box_format, box_type, box_not_finite, box_inverted,
    box_zero_area, box_huge. For a pair: pair_format, self_pair, missing_partner, partner_skipped,
    disagreeing_mentions. For the whole frame: frame_format.
    """
    found = FrameObjects(scene, frame)
    if not isinstance(objects, list):
        found.skip("frame", "", "frame_format")
        return found
    seen: set[int] = set()
    people = [(person, item) for item in objects if (person := _read_person(found, item, seen)) is not None]
    _read_pairs(found, people, seen)
    return found


def box_fault(box: Any) -> str | None:
    """Why `box` is no usable [x, y, width, height], or None where it is one."""
    if not isinstance(box, list) or len(box) != 4:
        return "box_format"
    if any(type(value) not in (int, float) for value in box):  # bool is an int, and no coordinate
        return "box_type"
    if any(isinstance(value, float) and not math.isfinite(value) for value in box):
        return "box_not_finite"
    if any(abs(value) > LARGEST for value in box):
        return "box_huge"
    if box[2] < 0 or box[3] < 0:
        return "box_inverted"
    return "box_zero_area" if box[2] == 0 or box[3] == 0 else None


def printable(text: str) -> str:
    """At most 200 characters, those that cannot be encoded replaced."""
    return text[:200].encode("utf-8", "replace").decode()


def _read_person(found: FrameObjects, item: Any, seen: set[int]) -> int | None:
    """Notes the person of `item`, or why it cannot be used; returns its id, None where there is none.

    The pairs of a person without a usable box are still read: they are skipped by name, and not lost.
    """
    if not isinstance(item, dict):
        found.skip("person", "", "object_format")
        return None
    name = item.get("label_id")
    if isinstance(name, str) and ":" in name and not name.startswith("pedestrian:"):
        found.others += 1
        return None
    match = _PERSON.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        found.skip("person", name if isinstance(name, str) else type(name).__name__, "bad_id")
        return None
    person = int(match[1])
    fault = "duplicate_person" if person in seen else box_fault(item.get("box"))
    seen.add(person)
    if fault is not None:
        found.skip("person", str(person), fault)
    else:
        found.ids.append(person)
        found.boxes.append([float(value) for value in item["box"]])
    return person


def _read_pairs(found: FrameObjects, people: list[tuple[int, dict[str, Any]]], seen: set[int]) -> None:
    """Joins the mentions of each pair; both persons may mention it, and must agree."""
    mentions: dict[tuple[int, int], set[tuple[str, ...]]] = {}
    for person, item in people:
        listed = item.get("H-interaction") or []
        for entry in listed if isinstance(listed, list) else [listed]:
            partner, labels = _read_mention(entry)
            if labels is None:
                found.skip("pair", f"{person}", "pair_format")
            elif partner == person:
                found.skip("pair", f"{person}-{person}", "self_pair")
            else:
                key = (min(person, partner), max(person, partner))
                mentions.setdefault(key, set()).add(labels)
    row = {person: index for index, person in enumerate(found.ids)}
    for (one, other), claims in mentions.items():
        fault = _pair_fault(one, other, claims, row, seen)
        if fault is not None:
            found.skip("pair", f"{one}-{other}", fault)
        else:
            rows = sorted((row[one], row[other]))
            found.pairs[rows[0], rows[1]] = next(iter(claims))


def _pair_fault(one: int, other: int, claims: set[tuple[str, ...]], row: dict[int, int], seen: set[int]) -> str | None:
    absent = {one, other} - set(row)
    if absent:
        return "partner_skipped" if absent <= seen else "missing_partner"
    return "disagreeing_mentions" if len(claims) > 1 else None


def _read_mention(entry: Any) -> tuple[int, tuple[str, ...] | None]:
    """The partner's id (-1 where it is no pedestrian) and the labels, None where the entry is malformed."""
    if not isinstance(entry, dict) or not isinstance(entry.get("pair"), str):
        return -1, None
    labels = entry.get("inter_labels")
    if not isinstance(labels, dict):
        return -1, None
    match = _PERSON.fullmatch(entry["pair"])
    carried = sorted(printable(label) for label, value in labels.items() if value)
    return int(match[1]) if match else -1, tuple(carried)


def load_labels(data: bytes, path: Path) -> dict[str, Any]:
    """The frames of one scene file: frame name -> list of objects.

    A byte order mark is accepted. NaN and Infinity parse, so that the box that holds them can be named.

    Raises:
        DataError: no UTF-8, no JSON, too deep, a key twice in one object, or no {"labels": {...}}; the file is named.
    """
    try:
        document = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_no_duplicates)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except RecursionError as error:
        raise DataError(f"{path} is nested too deeply to be annotations; restore the file") from error
    except ValueError as error:
        raise DataError(f"{path} is no valid JSON ({error}); restore the file") from error
    if not isinstance(document, dict) or not isinstance(document.get("labels"), dict):
        raise DataError(f'{path} has no "labels" object that maps frames to people; restore the file')
    labels: dict[str, Any] = document["labels"]
    return labels


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return values
