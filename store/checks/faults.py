"""Checks one shard against its plan, its recipe and sanity rules, and describes each fault."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from store.format.manifest import Manifest, Unit
from store.format.shard import Shard
from store.format.units import Scan, describe_stored, scan, shard_attributes
from store.tables import AXES, Mask, Visual


@dataclass(frozen=True)
class Fault:
    """One fault and its place; `unit` is -1 and the other places are "" where they do not apply."""

    kind: str
    message: str
    unit: int = -1
    scene: str = ""
    frame: str = ""
    person: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def unit_faults(manifest: Manifest, number: int, shard: Shard, size: int) -> list[Fault]:
    """Every fault of unit `number`, whose shard has `size` bytes, compared with STORE.json and the recipe."""
    unit = manifest.units[number]
    features = scan(shard.visual)
    faults = [
        *_identity_faults(manifest, unit, shard),
        *_count_faults(unit, describe_stored(unit, unit.shard, size, shard, features.zeros)),
        *_row_faults(shard, features),
    ]
    return [replace(fault, unit=number, scene=unit.scene) for fault in faults]


def _identity_faults(manifest: Manifest, unit: Unit, shard: Shard) -> Iterator[Fault]:
    """Attributes, scene and type of the features."""
    for name, wanted in shard_attributes(manifest, unit).items():
        if shard.attributes.get(name) != wanted:
            yield Fault(f"wrong_{name}", f"{unit.shard} has another {name} than STORE.json")
    if shard.scene != unit.scene or unit.scene not in manifest.scenes:
        yield Fault("wrong_scene", f"{unit.shard} is of scene {shard.scene}, but {unit.scene} in STORE.json")
    recipe, visual = manifest.recipe, shard.visual
    if visual.dtype != recipe.dtype or visual.shape[1] != recipe.visual_dim:
        yield Fault(
            "wrong_type",
            f"{unit.shard} has rows of {visual.shape[1]} {visual.dtype} values, but {recipe.visual_dim} "
            f"{recipe.dtype} values in the recipe",
        )
    if (shard.visual_flipped is None) != (recipe.views == 1):
        yield Fault("wrong_views", f"{unit.shard} does not have {recipe.views} view(s), as the recipe says")


def _count_faults(unit: Unit, actual: Unit) -> Iterator[Fault]:
    """Counts of the shard, `actual`, that differ from those in STORE.json, `unit`, or do not add up to the plan."""
    for item in fields(Unit):
        expected, counted = getattr(unit, item.name), getattr(actual, item.name)
        if expected != counted:
            message = f"{unit.shard}: {item.name} is {counted} in the shard, but {expected} in STORE.json"
            yield Fault("wrong_count", message)
    for axis in AXES:
        planned, stored = unit.planned(axis), actual.stored(axis)
        skipped = sum(actual.skipped.get(axis, {}).values())
        if planned != stored + skipped:
            message = f"{unit.shard}: {planned} {axis}s planned, but {stored} stored and {skipped} skipped"
            yield Fault("wrong_count", message)


def _row_faults(shard: Shard, features: Scan) -> Iterator[Fault]:
    """Values that no correct extraction produces, reported per person."""
    yield from _feature_faults(shard, "visual", shard.visual, features)
    if shard.visual_flipped is not None:
        yield from _feature_faults(shard, "visual_flipped", shard.visual_flipped, scan(shard.visual_flipped))
    bad_box = ~np.all(np.isfinite(shard.box) & (shard.box > [-np.inf, -np.inf, 0, 0]), axis=1)
    yield from _person_faults(shard, "bad_box", bad_box, "a box that is not finite or has no area")
    bad_pairs = shard.pair[~np.isfinite(shard.spatial).all(axis=1), 0]
    persons = np.zeros(len(shard.box), bool)
    persons[bad_pairs] = True
    yield from _person_faults(shard, "not_finite_spatial", persons, "a NaN or infinite spatial feature of a pair")


def _feature_faults(shard: Shard, name: str, rows: Visual, features: Scan) -> Iterator[Fault]:
    if rows.dtype.kind != "f":  # crops may be completely black
        return
    if not features.finite:
        bad = np.asarray(~np.isfinite(rows).all(axis=1))
        yield from _person_faults(shard, f"not_finite_{name}", bad, "a NaN or infinite feature")
    constant = _constant_rows(rows)
    zero = constant & (rows[:, :1] == 0).any(axis=1)
    yield from _person_faults(shard, f"zero_{name}", zero, "features that are all zero")
    yield from _person_faults(shard, f"constant_{name}", constant & ~zero, "features that are all the same")


def _person_faults(shard: Shard, kind: str, bad: Mask, what: str) -> Iterator[Fault]:
    for row in np.flatnonzero(bad).tolist():
        frame = str(shard.frame_name[np.searchsorted(shard.frame_offset, row, side="right") - 1])
        person = str(shard.person_id[row])
        yield Fault(kind, f"{shard.scene} {frame}: person {person} has {what}", frame=frame, person=person)


def _constant_rows(rows: Visual) -> Mask:
    """(N,) which rows have the same value in all of their columns; False if there is only one column."""
    constant = np.zeros(len(rows), bool)
    if rows.shape[1] > 1:
        candidates = np.flatnonzero(rows[:, 0] == rows[:, -1])  # excludes nearly all rows cheaply
        constant[candidates] = (rows[candidates] == rows[candidates, :1]).all(axis=1)
    return constant
