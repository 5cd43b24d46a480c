"""Figures -> JRDB annotations, and JRDB annotations -> figures."""

from itertools import chain
from typing import Any

import numpy as np

from extract.synth.crowd import Group, figures_in
from extract.synth.looks import draw_look
from extract.synth.people import Figure

Objects = list[dict[str, Any]]
_WALKING = {"walking", "running", "going upstairs", "going downstairs", "cycling", "skating", "scootering", "pushing"}
_SITTING = {"sitting", "typing", "eating sth", "writing", "reading"}


def annotate(groups: list[Group], frame: int, name: str, rng: np.random.Generator) -> Objects:
    """The objects of one frame, as JRDB lists them; a pair stands with one of its persons or with both."""
    return list(
        chain.from_iterable(
            _annotate_group(group, number, frame, name, rng) for number, group in present(groups, frame)
        )
    )


def present(groups: list[Group], frame: int) -> list[tuple[int, Group]]:
    """The groups that are seen in a frame, with their numbers."""
    return [(number, group) for number, group in enumerate(groups) if group.first <= frame <= group.last]


def figures_of(objects: Objects, scene_seed: int) -> list[Figure]:
    """The figures of one frame's annotated objects; a track looks the same in every frame."""
    return [_figure(item, scene_seed) for item in objects if _drawable(item.get("box"))]


def _annotate_group(group: Group, number: int, frame: int, name: str, rng: np.random.Generator) -> Objects:
    figures = figures_in(group, frame)
    ids = [f"pedestrian:{member.track}" for member in group.members]
    boxes = [list(figure.box) for figure in figures]
    objects = [_object(ids[i], boxes[i], figures[i].posture, number, len(ids), name) for i in range(len(ids))]
    for i, j, labels in group.labels:
        sides = ((i, j), (j, i)) if rng.random() < 0.5 else ((i, j),)
        for one, other in sides:
            mention = {"pair": ids[other], "box_pair": boxes[other], "inter_labels": dict.fromkeys(labels, 1)}
            objects[one]["H-interaction"].append(mention)
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


def _drawable(box: Any) -> bool:
    good = isinstance(box, list) and len(box) == 4 and all(type(v) in (int, float) and abs(v) < 1e5 for v in box)
    return good and box[2] >= 2 and box[3] >= 4


def _figure(item: dict[str, Any], scene_seed: int) -> Figure:
    track = int("".join(filter(str.isdigit, str(item.get("label_id"))))[:9] or 0)
    rng = np.random.default_rng((scene_seed, track))
    x, y, w, h = (round(value) for value in item["box"])
    frame = int("".join(filter(str.isdigit, str(item.get("file_id"))))[:9] or 0)
    posture = _posture(item)
    seed = (scene_seed, track, frame) if posture == "walking" else (scene_seed, track)
    look = draw_look(rng)
    return Figure((x, y, w, h), posture, float(rng.uniform(-np.pi, np.pi)), look, seed, float(rng.uniform(1, 2.2)))


def _posture(item: dict[str, Any]) -> str:
    """What is annotated of the person; where nothing is, what is annotated of a pair that it stands in."""
    actions = set(item.get("action_label") or {})
    pairs = " ".join(label for pair in item.get("H-interaction") or [] for label in pair.get("inter_labels", {}))
    if actions & _SITTING or (not actions and "sitting" in pairs):
        return "sitting"
    if actions & _WALKING or (not actions and "walking" in pairs):
        return "walking"
    return "standing"
