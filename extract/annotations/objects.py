"""Reads one frame's annotated objects into persons and pairs; unusable ones are reported with a reason."""

import json
import math
import re
import reprlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.errors import DataError
from store.format.ledger import MISSING_PARTNER
from store.format.shard import Skipped

MAX_COORDINATE = 1e6  # pixels; far beyond any panorama
_NUMBERS = {int, float}  # without bool, which is a subclass of int
_FOUND = 80  # characters of a value that a message shows
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
    first_other: str = ""  # the label_id of the first of them

    def skip(self, kind: str, item: str, reason: str, found: Any = None) -> None:
        """Adds an item of this frame that cannot be used; `found` is its unusable value, for messages."""
        text = "" if found is None else reprlib.repr(found)[:_FOUND]
        self.skipped.append(Skipped(kind, self.scene, self.frame, printable(item), reason, printable(text)))


def read_objects(scene: str, frame: str, objects: Any) -> FrameObjects:
    """Reads the persons and pairs of one frame of an annotation file.

    Reasons to skip a person: object_format, bad_id, duplicate_person, box_format, box_type, box_not_finite,
    box_inverted, box_zero_area, box_huge. A pair: pair_format, self_pair, missing_partner, partner_skipped.
    The whole frame: frame_format.
    """
    frame_objects = FrameObjects(scene, frame)
    if not isinstance(objects, list):
        frame_objects.skip("frame", "", "frame_format", objects)
        return frame_objects
    seen: set[int] = set()
    people = [(person, item) for item in objects if (person := _read_person(frame_objects, item, seen)) is not None]
    _read_pairs(frame_objects, people, seen)
    return frame_objects


def box_fault(box: Any) -> str | None:
    """Returns why `box` is not a usable [x, y, width, height], or None if it is."""
    if not isinstance(box, list) or len(box) != 4:
        return "box_format"
    if not _NUMBERS.issuperset(map(type, box)):
        return "box_type"
    x, y, width, height = map(abs, box)
    if not (x <= MAX_COORDINATE and y <= MAX_COORDINATE and width <= MAX_COORDINATE and height <= MAX_COORDINATE):
        finite = all(math.isfinite(value) for value in box if isinstance(value, float))
        return "box_huge" if finite else "box_not_finite"
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
        frame_objects.skip("person", "", "object_format", item)
        return None
    name = item.get("label_id")
    if isinstance(name, str) and ":" in name and not name.startswith("pedestrian:"):
        frame_objects.other_objects += 1
        frame_objects.first_other = frame_objects.first_other or printable(name)
        return None
    match = _PERSON.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        frame_objects.skip("person", name if isinstance(name, str) else type(name).__name__, "bad_id", name)
        return None
    person = int(match[1])
    fault = "duplicate_person" if person in seen else box_fault(item.get("box"))
    seen.add(person)
    if fault is not None:
        frame_objects.skip("person", str(person), fault, item.get("box"))
    else:
        frame_objects.ids.append(person)
        frame_objects.boxes.append([float(value) for value in item["box"]])
    return person


def _read_pairs(frame_objects: FrameObjects, people: list[tuple[int, dict[str, Any]]], seen: set[int]) -> None:
    """Adds the pairs. A pair is listed by one of its persons or by both; it has the labels of both mentions.

    So do the tools of the data set's owners (JRDB-Social, crop/crop_interaction.py). A pair with a malformed mention
    is skipped, also if the other mention is sound: not all of its labels are known.
    """
    row: dict[int | str, int] = {person: index for index, person in enumerate(frame_objects.ids)}
    for (a, b), mentions in _mentions_of_pairs(frame_objects, people).items():
        missing = {a, b} - set(row)
        malformed = [levels for levels in mentions if not _are_levels(levels)]
        if malformed:
            frame_objects.skip("pair", f"{a}-{b}", "pair_format", malformed[0])
        elif a == b:
            frame_objects.skip("pair", f"{a}-{b}", "self_pair")
        elif missing:
            frame_objects.skip("pair", f"{a}-{b}", "partner_skipped" if missing <= seen else MISSING_PARTNER)
        else:
            rows = sorted((row[a], row[b]))
            labels = {printable(label) for levels in mentions for label in levels}
            frame_objects.pairs[rows[0], rows[1]] = tuple(sorted(labels))


def _mentions_of_pairs(
    frame_objects: FrameObjects, people: list[tuple[int, dict[str, Any]]]
) -> dict[tuple[int, int | str], list[Any]]:
    """Returns (smaller id, larger id) -> the `inter_labels` of each mention of the pair, sound or not.

    In place of the larger id, a pair with an object that is not a pedestrian has its name. An entry that does not name
    a partner is skipped.
    """
    mentions: dict[tuple[int, int | str], list[Any]] = {}
    for person, item in people:
        listed = item.get("H-interaction") or []
        for entry in listed if isinstance(listed, list) else [listed]:
            partner = _read_partner(entry)
            if partner is None:
                frame_objects.skip("pair", str(person), "pair_format", entry)
            elif isinstance(partner, str):
                mentions.setdefault((person, partner), []).append(entry.get("inter_labels"))
            else:
                pair = min(person, partner), max(person, partner)
                mentions.setdefault(pair, []).append(entry.get("inter_labels"))
    return mentions


def _read_partner(entry: Any) -> int | str | None:
    """Returns the partner's id, the name of an object that is not a pedestrian, or None if it has neither."""
    name = entry.get("pair") if isinstance(entry, dict) else None
    if not isinstance(name, str):
        return None
    match = _PERSON.fullmatch(name)
    if match:
        return int(match[1])
    return printable(name) if ":" in name and not name.startswith("pedestrian:") else None


def _are_levels(levels: Any) -> bool:
    """Whether the `inter_labels` of a mention map labels to numbers of at least 1.

    The value of a label is its difficulty level: 1 (easy), 2 or 3 (hard). It is not a truth value, so a 0 does not say
    whether the label holds, and a number that is not a level is not guessed at.
    """
    return isinstance(levels, dict) and all(
        type(level) in (int, float) and 1 <= level < math.inf  # excludes bool and NaN
        for level in levels.values()
    )


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
        keys = ", ".join(f"{key[:40]!r}" for key in list(document)[:3]) if isinstance(document, dict) else ""
        found = f"its first keys are {keys}" if keys else f"it contains {reprlib.repr(document)}"
        raise DataError(f'{path} has no "labels" object that maps frames to people ({found}); restore the file')
    labels: dict[str, Any] = document["labels"]
    return labels


def _refuse_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {repeated!a} occurs twice in one object")
    return values
