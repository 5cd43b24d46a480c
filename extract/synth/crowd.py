"""Draws at random who is in a scene: groups of people that walk, stand or sit and are visible for a few frames.

Box sizes, shapes, distances and densities have the same distributions for all postures, so spatial features reveal
almost nothing about the class. A sitting person is nearer to the camera than a standing one of the same pixel height.
"""

from dataclasses import dataclass, replace
from math import exp, log

import numpy as np

from extract.synth.background import HORIZON, WIDTH
from extract.synth.looks import draw_look
from extract.synth.people import Person
from extract.synth.pose import POSTURES

# shares of groups, which give pairs about JRDB's labels: walking 47 %, standing 34 %, conversation 9 %, sitting 8 %
_SHARES = (0.50, 0.36, 0.14)
_TOGETHER = {"walking": "walking together", "standing": "standing together", "sitting": "sitting together"}
_RARE = ("holding sth together", "shaking hands", "going upstairs together")
_MIN_HEIGHT, _MAX_HEIGHT = 70.0, 330.0  # pixels
_FEET = 0.7  # distance of the feet below the horizon, as a share of the person's height
_STAY = (2, 4)  # frames in which a group is visible


@dataclass(frozen=True)
class Member:
    """A person of a group."""

    track: int
    person: Person  # as in the group's first frame
    speed: float  # pixels per frame


@dataclass(frozen=True)
class Group:
    """People who do something together, or a single person."""

    members: tuple[Member, ...]
    labels: tuple[tuple[int, int, tuple[str, ...]], ...]  # members i and j, and their labels
    first_frame: int
    last_frame: int


def draw_crowd(rng: np.random.Generator, frames: int, people: int) -> list[Group]:
    """Draws the groups of a scene with `frames` frames and about `people` people in each frame."""
    groups: list[Group] = []
    track = 1
    slots = max(1, round(people / 1.85))  # groups visible at the same time; they have 1.85 members on average
    for slot in range(slots):
        frame = -int(rng.integers(0, _STAY[1]))
        while frame < frames:
            stay = int(rng.integers(_STAY[0], _STAY[1] + 1))
            center = (slot + rng.uniform(0.1, 0.9)) * WIDTH / slots
            group = _draw_group(rng, track, center, frame, frame + stay - 1)
            groups.append(group)
            track += len(group.members)
            frame += stay
    return groups


def persons_in(group: Group, frame: int) -> list[Person]:
    """Returns the group's persons in one of the frames in which it is visible."""
    return [_move(member, frame - group.first_frame, frame) for member in group.members]


def _draw_group(rng: np.random.Generator, track: int, center: float, first_frame: int, last_frame: int) -> Group:
    posture = str(rng.choice(POSTURES, p=_SHARES))
    size = int(rng.choice((1, 2, 3), p=(0.3, 0.55, 0.15)))
    height = exp(rng.uniform(log(_MIN_HEIGHT), log(_MAX_HEIGHT)))
    heading = float(rng.choice((-1.0, 1.0)))
    speed = heading * rng.uniform(0.08, 0.3) * height if posture == "walking" else 0.0
    yaw = _draw_yaw(rng, posture, heading)
    xs = np.cumsum(rng.uniform(0.3, 1.1, size)) * height
    members = tuple(
        _draw_member(rng, track + i, posture, center + float(xs[i] - xs.mean()), height, yaw, speed)
        for i in range(size)
    )
    return Group(members, _draw_labels(rng, posture, size), first_frame, last_frame)


def _draw_yaw(rng: np.random.Generator, posture: str, heading: float) -> float:
    """Draws the yaw in radians: walking people mostly show their side, the other ones any direction."""
    if posture == "walking" and rng.random() < 0.75:
        return heading * (np.pi / 2 + float(rng.uniform(-0.6, 0.6)))
    return float(rng.uniform(-np.pi, np.pi))


def _draw_member(
    rng: np.random.Generator, track: int, posture: str, x: float, height: float, yaw: float, speed: float
) -> Member:
    h = round(height * rng.uniform(0.88, 1.12))
    w = round(h * rng.uniform(0.4, 0.66))
    foot = HORIZON + _FEET * height + rng.uniform(-0.1, 0.1) * height
    turn = yaw + float(rng.normal(0, 0.3 if posture == "walking" else 0.8))
    box = (round(x - w / 2), round(foot - h), w, h)
    return Member(track, Person(box, posture, turn, draw_look(rng), (track,), float(rng.uniform(1, 2.2))), speed)


def _draw_labels(rng: np.random.Generator, posture: str, size: int) -> tuple[tuple[int, int, tuple[str, ...]], ...]:
    """Draws the labels of a group's pairs: the posture's label, sometimes with a second label or replaced by one."""
    labels = [_TOGETHER[posture]]
    chance = rng.random()
    if posture != "walking" and chance < 0.2:
        labels = ["conversation"] if chance < 0.06 else [*labels, "conversation"]
    elif chance > 0.97:
        labels.append(str(rng.choice(_RARE)))
    return tuple((i, j, tuple(labels)) for i in range(size) for j in range(i + 1, size))


def _move(member: Member, steps: int, frame: int) -> Person:
    person = member.person
    x, y, w, h = person.box
    left = (x + round(steps * member.speed) + w // 2) % WIDTH - w // 2  # keeps the centre inside the panorama
    frame_seed = (frame,) if person.posture == "walking" else ()  # a new pose in each frame
    return replace(person, box=(left, y, w, h), seed=(*person.seed, *frame_seed))
