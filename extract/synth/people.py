"""Draws one person: poses a skeleton, adds limbs and clothes, turns and projects it, and fits it into its box."""

from dataclasses import dataclass
from math import cos, sin

import numpy as np

from extract.synth.looks import Look
from extract.synth.pose import Arm, Leg, Point, Pose, draw_pose
from extract.synth.raster import PLAIN, Colour, Floats, Limb, Pattern, new_patch, paint

_TILT = 0.2  # radians that the camera is tilted down
_MAX_STRETCH = 1.2  # limit on the change of aspect ratio to fill the box
_MARGIN = 0.06  # around the person, as a share of the box's height


@dataclass(frozen=True)
class Person:
    """A person in one frame."""

    box: tuple[int, int, int, int]  # x, y, width, height in panorama pixels
    posture: str  # one of POSTURES
    yaw: float  # radians; 0 faces the camera
    look: Look
    seed: tuple[int, ...]  # of the details of the pose
    blur: float = 1.0  # width of edges in pixels


@dataclass(frozen=True)
class _Part:
    """A limb between the joints `a` and `b`, before projection; see `Limb` for the other values."""

    a: Point
    b: Point
    radius_a: float
    radius_b: float
    colour: Colour
    pattern: Pattern = PLAIN
    depth_offset: float = 0.0  # added to the depth that determines the painting order


def draw_person(person: Person) -> tuple[Floats, int, int]:
    """Draws a person; returns a patch (4, h, w) and the panorama column and row of its top left corner."""
    pose = draw_pose(person.posture, np.random.default_rng(person.seed))
    parts = _body_parts(pose, person.look, abs(cos(person.yaw)))
    if person.posture == "sitting":
        parts += _chair_parts(pose, person.look)
    limbs = _project(parts, person.yaw)
    x, y, width, height = person.box
    margin = int(_MARGIN * height) + 2
    scale, origin = _fit(limbs, width, height)
    patch = new_patch(
        height + 2 * margin, width + 2 * margin, scale, (origin[0] + margin, origin[1] + margin), person.blur
    )
    paint(patch, _shadow(limbs))
    for limb in limbs:
        paint(patch, limb)
    return patch.pixels, x - margin, y - margin


def _body_parts(pose: Pose, look: Look, frontal: float) -> list[_Part]:
    torso = (0.072 + 0.04 * frontal) * look.limb_scale
    parts = [
        _Part(pose.pelvis, pose.chest, torso * 0.9, torso, look.top, look.pattern),
        _Part(pose.pelvis, pose.pelvis, torso * 0.96, torso * 0.96, look.bottom, depth_offset=-0.005),
    ]
    for leg in pose.legs:
        parts += _leg_parts(leg, look)
    for arm in pose.arms:
        parts += _arm_parts(arm, look)
    return parts + _head_parts(pose, look) + (_bag_parts(pose, look) if look.carries_bag else [])


def _leg_parts(leg: Leg, look: Look) -> list[_Part]:
    thick = 0.057 * look.limb_scale
    shank = look.skin if look.shorts else look.bottom
    return [
        _Part(leg.hip, leg.knee, thick * 1.1, thick * 0.85, look.bottom),
        _Part(leg.knee, leg.ankle, thick * 0.82, thick * 0.6, shank),
        _Part(leg.ankle, leg.toe, 0.03, 0.022, look.shoes, depth_offset=0.01),
    ]


def _arm_parts(arm: Arm, look: Look) -> list[_Part]:
    thick = 0.037 * look.limb_scale
    sleeve = look.top if look.long_sleeves else look.skin
    return [
        _Part(arm.shoulder, arm.elbow, thick * 1.15, thick, look.top, look.pattern),
        _Part(arm.elbow, arm.hand, thick * 0.95, thick * 0.75, sleeve, look.pattern if look.long_sleeves else PLAIN),
        _Part(arm.hand, arm.hand, 0.027, 0.027, look.skin, depth_offset=0.01),
    ]


def _head_parts(pose: Pose, look: Look) -> list[_Part]:
    x, y, z = pose.head
    size = 0.058 * look.head_scale
    crown, nape = (x, y + 0.024, z - 0.024), (x, y - (0.11 if look.long_hair else 0.0), z - 0.07)
    face = [
        _Part(pose.chest, pose.head, 0.036, 0.034, look.skin, depth_offset=-0.01),
        _Part((x, y - 0.022, z), (x, y + 0.02, z), size * 0.9, size, look.skin),
        _Part(crown, nape, size * 1.08, size * (0.95 if look.long_hair else 0.9), look.hair),
    ]
    eyes = [(x + side * 0.023, y + 0.004, z + size * 0.92) for side in (-1, 1)]
    return face + [_Part(eye, eye, 0.0075, 0.0075, (34, 28, 28)) for eye in eyes]


def _bag_parts(pose: Pose, look: Look) -> list[_Part]:
    low = (pose.pelvis[0], pose.pelvis[1] + 0.06, pose.pelvis[2] - 0.09)
    high = (pose.chest[0], pose.chest[1] + 0.01, pose.chest[2] - 0.1)
    return [_Part(low, high, 0.075, 0.065, look.bag)]


def _chair_parts(pose: Pose, look: Look) -> list[_Part]:
    """Returns a chair with four legs and a back."""
    seat, back, half = pose.pelvis[1] - 0.09, -0.12, 0.13
    wood: Colour = (look.chair[0] * 0.7, look.chair[1] * 0.65, look.chair[2] * 0.6)
    parts = []
    for z in (back, 0.0, 0.12):
        parts.append(_Part((-half, seat, z), (half, seat, z), 0.026, 0.026, look.chair, depth_offset=-0.15))
    for x in (-half, half):
        parts += [
            _Part((x, seat, z), (x * 1.08, 0.012, z), 0.013, 0.011, wood, depth_offset=-0.12) for z in (back, 0.13)
        ]
        parts.append(_Part((x, seat, back), (x, seat + 0.3, back - 0.04), 0.014, 0.014, wood))
    for up in (0.14, 0.2, 0.26):
        z = back - 0.04 * up / 0.3
        parts.append(_Part((-half, seat + up, z), (half, seat + up, z), 0.03, 0.03, look.chair))
    return parts


def _project(parts: list[_Part], yaw: float) -> list[Limb]:
    """Turns the parts by `yaw` and projects them for the tilted camera; returns limbs, the farthest first.

    The ground is at y = 0.
    """
    joints = np.array([(part.a, part.b) for part in parts])  # (n, 2, 3)
    x = joints[..., 0] * cos(yaw) + joints[..., 2] * sin(yaw)
    depth = joints[..., 2] * cos(yaw) - joints[..., 0] * sin(yaw)  # towards the camera
    y = depth * sin(_TILT) - joints[..., 1] * cos(_TILT)
    order = np.argsort(depth.mean(1) + [part.depth_offset for part in parts], kind="stable")
    ends = np.stack([x, y], -1).tolist()
    return [
        Limb(tuple(ends[i][0]), tuple(ends[i][1]), part.radius_a, part.radius_b, part.colour, part.pattern)
        for i in order.tolist()
        for part in (parts[i],)
    ]


def _fit(limbs: list[Limb], width: int, height: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Returns the scale (x, y) in pixels per body height and the origin in pixels from the box's corner.

    The feet are at the bottom of the box, and the person is centred horizontally.
    """
    ends = np.array([(*limb.a, limb.radius_a) for limb in limbs] + [(*limb.b, limb.radius_b) for limb in limbs])
    low, high = (ends[:, :2] - ends[:, 2:]).min(0), (ends[:, :2] + ends[:, 2:]).max(0)
    across, up = width / float(high[0] - low[0]), height / float(high[1] - low[1])
    across, up = min(across, up * _MAX_STRETCH), min(up, across * _MAX_STRETCH)
    middle = float(low[0] + high[0]) / 2
    return (across, up), (width / 2 - middle * across, height - float(high[1]) * up)


def _shadow(limbs: list[Limb]) -> Limb:
    xs = [x for limb in limbs for x in (limb.a[0], limb.b[0])]
    low, high = min(xs), max(xs)
    return Limb((low + 0.03, 0.0), (high - 0.03, 0.0), 0.035, 0.035, (20, 20, 24), opacity=0.4)
