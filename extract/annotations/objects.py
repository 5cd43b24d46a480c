"""Reads one frame's annotated objects into persons and pairs; unusable ones are reported with a reason."""

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.errors import DataError
from store.format.shard import Skipped

MAX_COORDINATE = 1e6  # pixels; far beyond any panorama
# Not damage: the owners annotate pairs whose partner has no box in the frame. Does not count towards --max_skipped.
MISSING_PARTNER = "missing_partner"
_PERSON = re.compile(r"pedestrian:([0-9]{1,18})")


@dataclass
class FrameObjects:
    """The usable persons of one frame in file order, its usable pairs, and the skipped items."""

    scene: str
    frame: str
    ids: list[int] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)  # x y width height in pixels
    pairs: dict[tuple[int, int], tuple[str, ...]] = field(default_factory=dict)  # (row, larger row) -> sorted labels
    skipped: list[Skipped] = field(default_factory=list)
    other_objects: int = 0  # objects other than pedestrians, which are ignored

    def skip(self, kind: str, item: str, reason: str) -> None:
        """Adds an item of this frame that cannot be used."""
        self.skipped.append(Skipped(kind, self.scene, self.frame, printable(item), reason))


def read_objects(scene: str, frame: str, objects: Any) -> FrameObjects:
    """Reads the persons and pairs of one frame of an annotation file.

    Reasons to skip a person: object_format, bad_id, duplicate_person, box_format, box_type, box_not_finite,
    box_inverted, box_zero_area, box_huge. A pair: pair_format, self_pair, missing_partner, partner_skipped.
    The whole frame: frame_format.
    """
    frame_objects = FrameObjects(scene, frame)
    if not isinstance(objects, list):
        frame_objects.skip("frame", "", "frame_format")
        return frame_objects
    seen: set[int] = set()
    people = [(person, item) for item in objects if (person := _read_person(frame_objects, item, seen)) is not None]
    _read_pairs(frame_objects, people, seen)
    return frame_objects


def box_fault(box: Any) -> str | None:
    """Returns why `box` is not a usable [x, y, width, height], or None if it is."""
    if not isinstance(box, list) or len(box) != 4:
        return "box_format"
    if any(type(value) not in (int, float) for value in box):  # excludes bool, which is a subclass of int
        return "box_type"
    if any(isinstance(value, float) and not math.isfinite(value) for value in box):
        return "box_not_finite"
    if any(abs(value) > MAX_COORDINATE for value in box):
        return "box_huge"
    if box[2] < 0 or box[3] < 0:
        return "box_inverted"
    return "box_zero_area" if box[2] == 0 or box[3] == 0 else None


def printable(text: str) -> str:
    """Truncates to 200 characters and replaces those that cannot be encoded."""
    return text[:200].encode("utf-8", "replace").decode()


def _read_person(frame_objects: FrameObjects, item: Any, seen: set[int]) -> int | None:
    """Adds the person of `item`, or skips it with a reason. Returns its id, or None if it has no valid id.

    The id of a person without a usable box is returned too, so that its pairs are reported as skipped.
    """
    if not isinstance(item, dict):
        frame_objects.skip("person", "", "object_format")
        return None
    name = item.get("label_id")
    if isinstance(name, str) and ":" in name and not name.startswith("pedestrian:"):
        frame_objects.other_objects += 1
        return None
    match = _PERSON.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        frame_objects.skip("person", name if isinstance(name, str) else type(name).__name__, "bad_id")
        return None
    person = int(match[1])
    fault = "duplicate_person" if person in seen else box_fault(item.get("box"))
    seen.add(person)
    if fault is not None:
        frame_objects.skip("person", str(person), fault)
    else:
        frame_objects.ids.append(person)
        frame_objects.boxes.append([float(value) for value in item["box"]])
    return person


def _read_pairs(frame_objects: FrameObjects, people: list[tuple[int, dict[str, Any]]], seen: set[int]) -> None:
    """Adds the pairs. A pair is listed by one of its persons or by both; it has the labels of both mentions.

    So do the tools of the data set's owners (JRDB-Social, crop/crop_interaction.py).
    """
    labels_of: dict[tuple[int, int], set[str]] = {}
    for person, item in people:
        listed = item.get("H-interaction") or []
        for entry in listed if isinstance(listed, list) else [listed]:
            partner, labels = _read_mention(entry)
            if labels is None:
                frame_objects.skip("pair", f"{person}", "pair_format")
            elif partner == person:
                frame_objects.skip("pair", f"{person}-{person}", "self_pair")
            else:
                labels_of.setdefault((min(person, partner), max(person, partner)), set()).update(labels)
    row = {person: index for index, person in enumerate(frame_objects.ids)}
    for (a, b), union in labels_of.items():
        missing = {a, b} - set(row)
        if missing:
            frame_objects.skip("pair", f"{a}-{b}", "partner_skipped" if missing <= seen else MISSING_PARTNER)
        else:
            rows = sorted((row[a], row[b]))
            frame_objects.pairs[rows[0], rows[1]] = tuple(sorted(union))


def _read_mention(entry: Any) -> tuple[int, list[str] | None]:
    """Returns the partner's id, -1 if it is not a pedestrian, and the labels, None if the entry is malformed."""
    if not isinstance(entry, dict) or not isinstance(entry.get("pair"), str):
        return -1, None
    levels = entry.get("inter_labels")
    if not isinstance(levels, dict) or not all(_is_level(value) for value in levels.values()):
        return -1, None
    match = _PERSON.fullmatch(entry["pair"])
    return int(match[1]) if match else -1, [printable(label) for label, level in levels.items() if level]


def _is_level(value: Any) -> bool:
    """Whether a label's value is a difficulty level (a number of at least 1), or 0 for a label that does not hold."""
    if type(value) is float and not math.isfinite(value):
        return False
    return type(value) in (int, float) and (value == 0 or value >= 1)


def load_labels(data: bytes, path: Path) -> dict[str, Any]:
    """Parses one scene's annotation file: frame key -> list of objects.

    A byte order mark is accepted. NaN and Infinity are parsed, so that `read_objects` can name the box.

    Raises:
        DataError: the file is not UTF-8 or not JSON, is nested too deeply, repeats a key, or has no "labels" object.
    """
    try:
        document = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_refuse_duplicate_keys)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except RecursionError as error:
        raise DataError(f"{path} is nested too deeply for annotations; restore the file") from error
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}); restore the file") from error
    if not isinstance(document, dict) or not isinstance(document.get("labels"), dict):
        raise DataError(f'{path} has no "labels" object that maps frames to people; restore the file')
    labels: dict[str, Any] = document["labels"]
    return labels


def _refuse_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {repeated!a} occurs twice in one object")
    return values
