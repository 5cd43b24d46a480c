"""Converts drawn persons to JRDB annotations, and JRDB annotations to persons that can be drawn."""

from itertools import chain
from typing import Any

import numpy as np

from extract.synth.crowd import Group, persons_in
from extract.synth.looks import draw_look
from extract.synth.people import Person

Objects = list[dict[str, Any]]
_WALKING = {"walking", "running", "going upstairs", "going downstairs", "cycling", "skating", "scootering", "pushing"}
_SITTING = {"sitting", "typing", "eating sth", "writing", "reading"}


def annotate(groups: list[Group], frame: int, name: str, rng: np.random.Generator) -> Objects:
    """Returns the objects of one frame in JRDB's form; a pair is listed by one of its persons or by both."""
    return list(
        chain.from_iterable(
            _annotate_group(group, number, frame, name, rng) for number, group in visible_groups(groups, frame)
        )
    )


def visible_groups(groups: list[Group], frame: int) -> list[tuple[int, Group]]:
    """Returns the groups that are visible in a frame, with their numbers."""
    return [(number, group) for number, group in enumerate(groups) if group.first_frame <= frame <= group.last_frame]


def annotated_persons(objects: Objects, scene_seed: int) -> list[Person]:
    """Returns the persons to draw for one frame's annotated objects; a track looks the same in each frame."""
    return [_person_from(item, scene_seed) for item in objects if _is_drawable(item.get("box"))]


def _annotate_group(group: Group, number: int, frame: int, name: str, rng: np.random.Generator) -> Objects:
    persons = persons_in(group, frame)
    ids = [f"pedestrian:{member.track}" for member in group.members]
    boxes = [list(person.box) for person in persons]
    objects = [_object(ids[i], boxes[i], persons[i].posture, number, len(ids), name) for i in range(len(ids))]
    for i, j, labels in group.labels:
        sides = ((i, j), (j, i)) if rng.random() < 0.5 else ((i, j),)
        for person, partner in sides:
            entry = {"pair": ids[partner], "box_pair": boxes[partner], "inter_labels": dict.fromkeys(labels, 1)}
            objects[person]["H-interaction"].append(entry)
    return objects


def _object(name: str, box: list[int], posture: str, group: int, size: int, frame: str) -> dict[str, Any]:
    return {
        "label_id": name,
        "file_id": frame,
        "box": box,
        "action_label": {posture: 1},
        "attributes": {
            "area": float(box[2] * box[3]),
            "interpolated": False,
            "no_eval": False,
            "occlusion": "Fully_visible",
            "truncated": "false",
        },
        "social_activity": {posture: 1.0},
        "social_group": {"cluster_ID": group, "cluster_stat": size},
        "H-interaction": [],
    }


def _is_drawable(box: Any) -> bool:
    valid = isinstance(box, list) and len(box) == 4 and all(type(v) in (int, float) and abs(v) < 1e5 for v in box)
    return valid and box[2] >= 2 and box[3] >= 4


def _person_from(item: dict[str, Any], scene_seed: int) -> Person:
    track = _number_in(item.get("label_id"))
    rng = np.random.default_rng((scene_seed, track))
    x, y, w, h = (round(value) for value in item["box"])
    frame = _number_in(item.get("file_id"))
    posture = _posture_from(item)
    seed = (scene_seed, track, frame) if posture == "walking" else (scene_seed, track)
    look = draw_look(rng)
    return Person((x, y, w, h), posture, float(rng.uniform(-np.pi, np.pi)), look, seed, float(rng.uniform(1, 2.2)))


def _number_in(name: Any) -> int:
    """Returns the number that the digits of `name` form, 0 if there are none."""
    return int("".join(filter(str.isdigit, str(name)))[:9] or 0)


def _posture_from(item: dict[str, Any]) -> str:
    """Returns the posture of the person's own labels, or if it has none, of its pairs' labels."""
    actions = set(item.get("action_label") or {})
    pairs = " ".join(label for pair in item.get("H-interaction") or [] for label in pair.get("inter_labels", {}))
    if actions & _SITTING or (not actions and "sitting" in pairs):
        return "sitting"
    if actions & _WALKING or (not actions and "walking" in pairs):
        return "walking"
    return "standing"
