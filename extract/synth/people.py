"""A person as pixels: a posed skeleton, turned and projected, clothed in limbs, fitted into an annotated box."""

from dataclasses import dataclass
from math import cos, sin

import numpy as np

from extract.synth.looks import Look
from extract.synth.pose import Arm, Leg, Point, Pose, pose_of
from extract.synth.raster import PLAIN, Colour, Fabric, Floats, Limb, new_patch, paint

_TILT = 0.2  # radians by which the camera looks down
_STRETCH = 1.2  # most that a figure is widened or narrowed to fill its box
_MARGIN = 0.06  # of the box's height, around the figure


@dataclass(frozen=True)
class Figure:
    """A person in one frame.

    `box` is (x, y, width, height) in panorama pixels; `yaw` turns the person (radians, 0 faces the camera);
    `seed` fixes the details of the pose; `blur` is the width of edges in pixels.
    """

    box: tuple[int, int, int, int]
    posture: str
    yaw: float
    look: Look
    seed: tuple[int, ...]
    blur: float = 1.0


@dataclass(frozen=True)
class _Part:
    """A limb between two joints, not yet projected."""

    a: Point
    b: Point
    ra: float
    rb: float
    colour: Colour
    fabric: Fabric = PLAIN
    nearer: float = 0.0  # added to the depth by which parts are painted


def draw_person(figure: Figure) -> tuple[Floats, int, int]:
    """The figure as a patch (4, h, w), with the panorama column and row of the patch's corner."""
    pose = pose_of(figure.posture, np.random.default_rng(figure.seed))
    parts = _body(pose, figure.look, abs(cos(figure.yaw)))
    if figure.posture == "sitting":
        parts += _chair(pose, figure.look)
    limbs = _project(parts, figure.yaw)
    x, y, width, height = figure.box
    margin = int(_MARGIN * height) + 2
    scale, origin = _fit(limbs, width, height)
    patch = new_patch(
        height + 2 * margin, width + 2 * margin, scale, (origin[0] + margin, origin[1] + margin), figure.blur
    )
    paint(patch, _shadow(limbs))
    for limb in limbs:
        paint(patch, limb)
    return patch.pixels, x - margin, y - margin


def _body(pose: Pose, look: Look, frontal: float) -> list[_Part]:
    torso = (0.072 + 0.04 * frontal) * look.stout
    parts = [
        _Part(pose.pelvis, pose.chest, torso * 0.9, torso, look.top, look.weave),
        _Part(pose.pelvis, pose.pelvis, torso * 0.96, torso * 0.96, look.bottom, nearer=-0.005),
    ]
    for leg in pose.legs:
        parts += _clothe_leg(leg, look)
    for arm in pose.arms:
        parts += _clothe_arm(arm, look)
    return parts + _clothe_head(pose, look) + (_bag(pose, look) if look.carries_bag else [])


def _clothe_leg(leg: Leg, look: Look) -> list[_Part]:
    thick = 0.057 * look.stout
    shank = look.skin if look.shorts else look.bottom
    return [
        _Part(leg.hip, leg.knee, thick * 1.1, thick * 0.85, look.bottom),
        _Part(leg.knee, leg.ankle, thick * 0.82, thick * 0.6, shank),
        _Part(leg.ankle, leg.toe, 0.03, 0.022, look.shoes, nearer=0.01),
    ]


def _clothe_arm(arm: Arm, look: Look) -> list[_Part]:
    thick = 0.037 * look.stout
    sleeve = look.top if look.long_sleeves else look.skin
    return [
        _Part(arm.shoulder, arm.elbow, thick * 1.15, thick, look.top, look.weave),
        _Part(arm.elbow, arm.hand, thick * 0.95, thick * 0.75, sleeve, look.weave if look.long_sleeves else PLAIN),
        _Part(arm.hand, arm.hand, 0.027, 0.027, look.skin, nearer=0.01),
    ]


def _clothe_head(pose: Pose, look: Look) -> list[_Part]:
    x, y, z = pose.head
    size = 0.058 * look.head
    crown, nape = (x, y + 0.024, z - 0.024), (x, y - (0.11 if look.long_hair else 0.0), z - 0.07)
    face = [
        _Part(pose.chest, pose.head, 0.036, 0.034, look.skin, nearer=-0.01),
        _Part((x, y - 0.022, z), (x, y + 0.02, z), size * 0.9, size, look.skin),
        _Part(crown, nape, size * 1.08, size * (0.95 if look.long_hair else 0.9), look.hair),
    ]
    eyes = [(x + side * 0.023, y + 0.004, z + size * 0.92) for side in (-1, 1)]
    return face + [_Part(eye, eye, 0.0075, 0.0075, (34, 28, 28)) for eye in eyes]


def _bag(pose: Pose, look: Look) -> list[_Part]:
    low = (pose.pelvis[0], pose.pelvis[1] + 0.06, pose.pelvis[2] - 0.09)
    high = (pose.chest[0], pose.chest[1] + 0.01, pose.chest[2] - 0.1)
    return [_Part(low, high, 0.075, 0.065, look.bag)]


def _chair(pose: Pose, look: Look) -> list[_Part]:
    """A seat with a back and four legs under the person's thighs."""
    seat, back, half = pose.pelvis[1] - 0.09, -0.12, 0.13
    wood: Colour = (look.chair[0] * 0.7, look.chair[1] * 0.65, look.chair[2] * 0.6)
    parts = []
    for z in (back, 0.0, 0.12):
        parts.append(_Part((-half, seat, z), (half, seat, z), 0.026, 0.026, look.chair, nearer=-0.15))
    for x in (-half, half):
        parts += [_Part((x, seat, z), (x * 1.08, 0.012, z), 0.013, 0.011, wood, nearer=-0.12) for z in (back, 0.13)]
        parts.append(_Part((x, seat, back), (x, seat + 0.3, back - 0.04), 0.014, 0.014, wood))
    for up in (0.14, 0.2, 0.26):
        z = back - 0.04 * up / 0.3
        parts.append(_Part((-half, seat + up, z), (half, seat + up, z), 0.03, 0.03, look.chair))
    return parts


def _project(parts: list[_Part], yaw: float) -> list[Limb]:
    """Turns the parts by `yaw`, looks down by _TILT and lists them as limbs, farthest first; the ground is y = 0."""
    joints = np.array([(part.a, part.b) for part in parts])  # (n, 2, 3)
    x = joints[..., 0] * cos(yaw) + joints[..., 2] * sin(yaw)
    depth = joints[..., 2] * cos(yaw) - joints[..., 0] * sin(yaw)  # towards the camera
    y = depth * sin(_TILT) - joints[..., 1] * cos(_TILT)
    order = np.argsort(depth.mean(1) + [part.nearer for part in parts], kind="stable")
    ends = np.stack([x, y], -1).tolist()
    return [
        Limb(tuple(ends[i][0]), tuple(ends[i][1]), part.ra, part.rb, part.colour, part.fabric)
        for i in order.tolist()
        for part in (parts[i],)
    ]


def _fit(limbs: list[Limb], width: int, height: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Scale (pixels per body height) and origin (pixels from the box's corner): feet on the box's bottom, centred."""
    ends = np.array([(*limb.a, limb.ra) for limb in limbs] + [(*limb.b, limb.rb) for limb in limbs])
    low, high = (ends[:, :2] - ends[:, 2:]).min(0), (ends[:, :2] + ends[:, 2:]).max(0)
    across, up = width / float(high[0] - low[0]), height / float(high[1] - low[1])
    across, up = min(across, up * _STRETCH), min(up, across * _STRETCH)
    middle = float(low[0] + high[0]) / 2
    return (across, up), (width / 2 - middle * across, height - float(high[1]) * up)


def _shadow(limbs: list[Limb]) -> Limb:
    xs = [x for limb in limbs for x in (limb.a[0], limb.b[0])]
    low, high = min(xs), max(xs)
    return Limb((low + 0.03, 0.0), (high - 0.03, 0.0), 0.035, 0.035, (20, 20, 24), opacity=0.4)
