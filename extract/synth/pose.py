"""Skeletons of walking, standing and sitting people.

Body coordinates: x to the person's left, y up from the ground, z forward; 1 is the height of the standing person.
"""

from dataclasses import dataclass
from math import cos, sin

import numpy as np

Point = tuple[float, float, float]
POSTURES = ("walking", "standing", "sitting")

_THIGH, _SHANK, _FOOT = 0.245, 0.235, 0.075
_UPPER_ARM, _FOREARM = 0.155, 0.15
_ARMS = (
    (0.03, 0.12),
    (0.0, 0.3),
    (0.35, 1.9),
    (0.25, 1.4),
    (-0.25, 0.9),
)  # (swing, elbow) in radians: hanging, relaxed, holding a phone, folded, on the hip


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
    """A skeleton; legs and arms are (right, left)."""

    pelvis: Point
    chest: Point
    head: Point
    legs: tuple[Leg, Leg]
    arms: tuple[Arm, Arm]


def draw_pose(posture: str, rng: np.random.Generator) -> Pose:
    """Draws a random pose of the given posture."""
    if posture == "walking":
        return _draw_walking(rng)
    if posture == "sitting":
        return _draw_sitting(rng)
    return _draw_standing(rng)


def _draw_walking(rng: np.random.Generator) -> Pose:
    stride = float(rng.uniform(0.36, 0.58))
    bent_knee = float(rng.uniform(0.25, 0.85))
    swings = ((stride, 0.08), (-stride * 0.85, bent_knee))
    arm = float(rng.uniform(0.35, 0.75))
    elbow = float(rng.uniform(0.2, 0.8))
    arms = ((-arm, elbow), (arm, elbow + 0.15))  # each arm swings opposite to the leg on its side
    order = (0, 1) if rng.random() < 0.5 else (1, 0)
    legs = (swings[order[0]], swings[order[1]])
    return _build_pose(legs, (arms[order[0]], arms[order[1]]), lean=0.06, spread=0.05)


def _draw_standing(rng: np.random.Generator) -> Pose:
    first, second = (float(angle) for angle in rng.uniform(-0.04, 0.06, 2))
    right, left = (_ARMS[int(kind)] for kind in rng.choice(len(_ARMS), 2, p=(0.4, 0.2, 0.15, 0.15, 0.1)))
    spread = float(rng.uniform(0.036, 0.06))
    return _build_pose(((first, 0.03), (second, 0.03)), (right, left), lean=0.0, spread=spread)


def _draw_sitting(rng: np.random.Generator) -> Pose:
    thigh = float(rng.uniform(1.38, 1.5))
    bends = rng.uniform(1.15, 1.6, 2)
    arm, elbow = float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.7, 1.5))
    legs = ((thigh, float(bends[0])), (thigh, float(bends[1])))
    lean, spread = float(rng.uniform(-0.06, 0.1)), float(rng.uniform(0.06, 0.095))
    return _build_pose(legs, ((arm, elbow), (arm, elbow)), lean, spread)


def _build_pose(
    legs: tuple[tuple[float, float], tuple[float, float]],
    arms: tuple[tuple[float, float], tuple[float, float]],
    lean: float,
    spread: float,
) -> Pose:
    """Builds a pose from joint angles in radians; 0 hangs down and positive angles turn forward.

    Args:
        legs: (thigh, knee) of the right and the left leg.
        arms: (upper arm, elbow) of the right and the left arm.
        lean: z of the chest.
        spread: distance of each leg from the centre.
    """
    right, left = (_build_leg(side * spread, *angles) for side, angles in zip((-1, 1), legs, strict=True))
    ground = min(right.ankle[1], left.ankle[1], right.toe[1], left.toe[1]) - 0.02
    raised = (_raise_leg(right, -ground), _raise_leg(left, -ground))
    hip = -ground
    pelvis, chest = (0.0, hip + 0.03, 0.0), (0.0, hip + 0.26, lean)
    head = (0.0, hip + 0.425, lean * 1.5 + 0.01)
    both = tuple(_build_arm((side * 0.125, hip + 0.29, lean), side, *a) for side, a in zip((-1, 1), arms, strict=True))
    return Pose(pelvis, chest, head, raised, (both[0], both[1]))


def _build_leg(x: float, thigh: float, bend: float) -> Leg:
    knee = (x, -_THIGH * cos(thigh), _THIGH * sin(thigh))
    shank = thigh - bend
    ankle = (x, knee[1] - _SHANK * cos(shank), knee[2] + _SHANK * sin(shank))
    tilt = min(0.0, shank)  # the foot of a trailing leg points down
    toe = (x, ankle[1] + _FOOT * sin(tilt), ankle[2] + _FOOT * cos(tilt))
    return Leg((x, 0.0, 0.0), knee, ankle, toe)


def _raise_leg(leg: Leg, up: float) -> Leg:
    hip, knee, ankle, toe = ((p[0], p[1] + up, p[2]) for p in (leg.hip, leg.knee, leg.ankle, leg.toe))
    return Leg(hip, knee, ankle, toe)


def _build_arm(shoulder: Point, side: int, swing: float, elbow: float) -> Arm:
    out = 0.03 * side
    joint = (shoulder[0] + out, shoulder[1] - _UPPER_ARM * cos(swing), shoulder[2] + _UPPER_ARM * sin(swing))
    angle = swing + elbow
    inward = -0.06 * side * min(elbow, 1.0)
    hand = (joint[0] + inward, joint[1] - _FOREARM * cos(angle), joint[2] + _FOREARM * sin(angle))
    return Arm(shoulder, joint, hand)
