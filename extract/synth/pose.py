"""Skeletons of people who walk, stand or sit, in body coordinates.

Unit: the height of the standing person. Axes of a joint: x to the person's left, y up from the ground, z forward.
"""

from dataclasses import dataclass
from math import cos, sin

import numpy as np

Point = tuple[float, float, float]
POSTURES = ("walking", "standing", "sitting")

_THIGH, _SHANK, _FOOT = 0.245, 0.235, 0.075
_UPPER_ARM, _FOREARM = 0.155, 0.15
_ARMS = ((0.03, 0.12), (0.0, 0.3), (0.35, 1.9), (0.25, 1.4), (-0.25, 0.9))  # hanging, loose, phone, folded, on the hip


@dataclass(frozen=True)
class Leg:
    """Hip, knee, ankle and toe."""

    hip: Point
    knee: Point
    ankle: Point
    toe: Point


@dataclass(frozen=True)
class Arm:
    """Shoulder, elbow and hand."""

    shoulder: Point
    elbow: Point
    hand: Point


@dataclass(frozen=True)
class Pose:
    """A skeleton; tuples hold right and left."""

    pelvis: Point
    chest: Point
    head: Point
    legs: tuple[Leg, Leg]
    arms: tuple[Arm, Arm]


def pose_of(posture: str, rng: np.random.Generator) -> Pose:
    """A random pose of one of POSTURES."""
    if posture == "walking":
        return _walking(rng)
    if posture == "sitting":
        return _sitting(rng)
    return _standing(rng)


def _walking(rng: np.random.Generator) -> Pose:
    stride = float(rng.uniform(0.36, 0.58))
    lifted = float(rng.uniform(0.25, 0.85))
    swings = ((stride, 0.08), (-stride * 0.85, lifted))
    arm = float(rng.uniform(0.35, 0.75))
    elbow = float(rng.uniform(0.2, 0.8))
    arms = ((-arm, elbow), (arm, elbow + 0.15))  # each arm swings against the leg of its side
    order = (0, 1) if rng.random() < 0.5 else (1, 0)
    legs = (swings[order[0]], swings[order[1]])
    return _assemble(legs, (arms[order[0]], arms[order[1]]), lean=0.06, spread=0.05)


def _standing(rng: np.random.Generator) -> Pose:
    first, second = (float(angle) for angle in rng.uniform(-0.04, 0.06, 2))
    right, left = (_ARMS[int(kind)] for kind in rng.choice(len(_ARMS), 2, p=(0.4, 0.2, 0.15, 0.15, 0.1)))
    spread = float(rng.uniform(0.036, 0.06))
    return _assemble(((first, 0.03), (second, 0.03)), (right, left), lean=0.0, spread=spread)


def _sitting(rng: np.random.Generator) -> Pose:
    thigh = float(rng.uniform(1.38, 1.5))
    bends = rng.uniform(1.15, 1.6, 2)
    arm, elbow = float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.7, 1.5))
    legs = ((thigh, float(bends[0])), (thigh, float(bends[1])))
    lean, spread = float(rng.uniform(-0.06, 0.1)), float(rng.uniform(0.06, 0.095))
    return _assemble(legs, ((arm, elbow), (arm, elbow)), lean, spread)


def _assemble(
    legs: tuple[tuple[float, float], tuple[float, float]],
    arms: tuple[tuple[float, float], tuple[float, float]],
    lean: float,
    spread: float,
) -> Pose:
    """A pose from joint angles: legs (thigh, knee), arms (upper arm, elbow), radians, forward from hanging down."""
    right, left = (_leg(side * spread, *angles) for side, angles in zip((-1, 1), legs, strict=True))
    ground = min(right.ankle[1], left.ankle[1], right.toe[1], left.toe[1]) - 0.02
    legs_up = (_raise(right, -ground), _raise(left, -ground))
    hip = -ground
    pelvis, chest = (0.0, hip + 0.03, 0.0), (0.0, hip + 0.26, lean)
    head = (0.0, hip + 0.425, lean * 1.5 + 0.01)
    sides = tuple(_arm((side * 0.125, hip + 0.29, lean), side, *a) for side, a in zip((-1, 1), arms, strict=True))
    return Pose(pelvis, chest, head, legs_up, (sides[0], sides[1]))


def _leg(x: float, thigh: float, bend: float) -> Leg:
    knee = (x, -_THIGH * cos(thigh), _THIGH * sin(thigh))
    shank = thigh - bend
    ankle = (x, knee[1] - _SHANK * cos(shank), knee[2] + _SHANK * sin(shank))
    tilt = min(0.0, shank)  # a trailing foot points down
    toe = (x, ankle[1] + _FOOT * sin(tilt), ankle[2] + _FOOT * cos(tilt))
    return Leg((x, 0.0, 0.0), knee, ankle, toe)


def _raise(leg: Leg, up: float) -> Leg:
    hip, knee, ankle, toe = ((p[0], p[1] + up, p[2]) for p in (leg.hip, leg.knee, leg.ankle, leg.toe))
    return Leg(hip, knee, ankle, toe)


def _arm(shoulder: Point, side: int, swing: float, elbow: float) -> Arm:
    out = 0.03 * side
    joint = (shoulder[0] + out, shoulder[1] - _UPPER_ARM * cos(swing), shoulder[2] + _UPPER_ARM * sin(swing))
    angle = swing + elbow
    inward = -0.06 * side * min(elbow, 1.0)
    hand = (joint[0] + inward, joint[1] - _FOREARM * cos(angle), joint[2] + _FOREARM * sin(angle))
    return Arm(shoulder, joint, hand)
