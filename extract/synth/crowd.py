"""Who is in a scene: groups that walk, stand or sit, seen for a few frames, laid out alike whatever they do.

Box sizes, shapes, distances and densities are drawn from the same distributions for every posture, so that the
spatial features say next to nothing of the class: a sitting person is simply nearer than a standing one of the same
height in pixels.
"""

from dataclasses import dataclass, replace
from math import exp, log

import numpy as np

from extract.synth.background import HORIZON, WIDTH
from extract.synth.looks import draw_look
from extract.synth.people import Figure
from extract.synth.pose import POSTURES

# of groups; pairs come out at about JRDB's walking 47 %, standing 34 %, conversation 9 %, sitting 8 %, rare others
_SHARES = (0.50, 0.36, 0.14)
_TOGETHER = {"walking": "walking together", "standing": "standing together", "sitting": "sitting together"}
_RARE = ("holding sth together", "shaking hands", "going upstairs together")
_SMALLEST, _LARGEST = 70.0, 330.0  # height in pixels
_FEET = 0.7  # rows below the horizon at which a person's feet are, in heights
_STAY = (2, 4)  # frames for which a group is seen


@dataclass(frozen=True)
class Member:
    """A person of a group; positions are relative to the group's."""

    track: int
    figure: Figure  # its box is that of the first frame
    speed: float  # pixels a frame


@dataclass(frozen=True)
class Group:
    """People who do something together, or one alone."""

    members: tuple[Member, ...]
    labels: tuple[tuple[int, int, tuple[str, ...]], ...]  # members i and j, and what is annotated of them
    first: int  # frame
    last: int


def draw_crowd(rng: np.random.Generator, frames: int, people: int) -> list[Group]:
    """The groups of a scene of `frames` frames with about `people` people in each."""
    groups: list[Group] = []
    track = 1
    slots = max(1, round(people / 1.85))  # groups at a time; they have 1.85 members on average
    for slot in range(slots):
        frame = -int(rng.integers(0, _STAY[1]))
        while frame < frames:
            stay = int(rng.integers(_STAY[0], _STAY[1] + 1))
            center = (slot + rng.uniform(0.1, 0.9)) * WIDTH / slots
            group = _group(rng, track, center, frame, frame + stay - 1)
            groups.append(group)
            track += len(group.members)
            frame += stay
    return groups


def figures_in(group: Group, frame: int) -> list[Figure]:
    """The group's figures in one frame of its stay."""
    return [_move(member, frame - group.first, frame) for member in group.members]


def _group(rng: np.random.Generator, track: int, center: float, first: int, last: int) -> Group:
    posture = str(rng.choice(POSTURES, p=_SHARES))
    size = int(rng.choice((1, 2, 3), p=(0.3, 0.55, 0.15)))
    height = exp(rng.uniform(log(_SMALLEST), log(_LARGEST)))
    heading = float(rng.choice((-1.0, 1.0)))
    speed = heading * rng.uniform(0.08, 0.3) * height if posture == "walking" else 0.0
    yaw = _facing(rng, posture, heading)
    xs = np.cumsum(rng.uniform(0.3, 1.1, size)) * height
    members = tuple(
        _member(rng, track + i, posture, center + float(xs[i] - xs.mean()), height, yaw, speed) for i in range(size)
    )
    return Group(members, _labels(rng, posture, size), first, last)


def _facing(rng: np.random.Generator, posture: str, heading: float) -> float:
    """Yaw in radians: walkers mostly show their side, the others any."""
    if posture == "walking" and rng.random() < 0.75:
        return heading * (np.pi / 2 + float(rng.uniform(-0.6, 0.6)))
    return float(rng.uniform(-np.pi, np.pi))


def _member(
    rng: np.random.Generator, track: int, posture: str, x: float, height: float, yaw: float, speed: float
) -> Member:
    h = round(height * rng.uniform(0.88, 1.12))
    w = round(h * rng.uniform(0.4, 0.66))
    foot = HORIZON + _FEET * height + rng.uniform(-0.1, 0.1) * height
    turn = yaw + float(rng.normal(0, 0.3 if posture == "walking" else 0.8))
    box = (round(x - w / 2), round(foot - h), w, h)
    return Member(track, Figure(box, posture, turn, draw_look(rng), (track,), float(rng.uniform(1, 2.2))), speed)


def _labels(rng: np.random.Generator, posture: str, size: int) -> tuple[tuple[int, int, tuple[str, ...]], ...]:
    """What is annotated of each pair of a group: the posture's label, and sometimes another beside or instead."""
    labels = [_TOGETHER[posture]]
    luck = rng.random()
    if posture != "walking" and luck < 0.2:
        labels = ["conversation"] if luck < 0.06 else [*labels, "conversation"]
    elif luck > 0.97:
        labels.append(str(rng.choice(_RARE)))
    return tuple((i, j, tuple(labels)) for i in range(size) for j in range(i + 1, size))


def _move(member: Member, steps: int, frame: int) -> Figure:
    figure = member.figure
    x, y, w, h = figure.box
    left = (x + round(steps * member.speed) + w // 2) % WIDTH - w // 2  # the centre lies in the panorama
    moving = (frame,) if figure.posture == "walking" else ()
    return replace(figure, box=(left, y, w, h), seed=(*figure.seed, *moving))
