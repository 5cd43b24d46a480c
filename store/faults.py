"""What a shard must hold for its unit: what the plan, the recipe and plain sense say, each fault with its place."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from store.format.manifest import Manifest, Unit
from store.format.shard import Shard
from store.format.units import Scan, _counted, attributes_of, scan
from store.tables import Mask, Visual

_KINDS = ("frame", "person", "pair")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, and where: `unit` is -1 and the places are "" where they do not apply."""

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
    """Everything in which the shard of unit `number`, `size` bytes, is not what STORE.json and its recipe say."""
    unit = manifest.units[number]
    seen = scan(shard.visual)
    found = [
        *_identity_faults(manifest, unit, shard),
        *_count_faults(unit, _counted(unit, unit.shard, size, shard, seen.zeros)),
        *_row_faults(shard, seen),
    ]
    return [replace(fault, unit=number, scene=unit.scene) for fault in found]


def _identity_faults(manifest: Manifest, unit: Unit, shard: Shard) -> Iterator[Fault]:
    """The shard's own words against STORE.json's."""
    for name, wanted in attributes_of(manifest, unit).items():
        if shard.attributes.get(name) != wanted:
            yield Fault(f"wrong_{name}", f"{unit.shard} has another {name} than STORE.json")
    if shard.scene != unit.scene or unit.scene not in manifest.scenes:
        yield Fault("wrong_scene", f"{unit.shard} is of scene {shard.scene}, STORE.json says {unit.scene}")
    recipe = manifest.recipe
    if shard.visual.dtype != recipe.dtype or shard.visual.shape[1] != recipe.visual_dim:
        yield Fault("wrong_type", f"{unit.shard} holds {shard.visual.shape[1]} values as {shard.visual.dtype} a row")
    if (shard.visual_flipped is None) != (recipe.views == 1):
        yield Fault("wrong_views", f"{unit.shard} does not hold the {recipe.views} view(s) of the recipe")


def _count_faults(unit: Unit, found: Unit) -> Iterator[Fault]:
    """The rows that are there, `found`, against those that STORE.json counts and the plan wants."""
    for item in fields(Unit):
        said, counted = getattr(unit, item.name), getattr(found, item.name)
        if said != counted:
            yield Fault("wrong_count", f"{unit.shard}: STORE.json says {item.name} {said}, the shard holds {counted}")
    for kind in _KINDS:
        planned, stored = getattr(unit, f"{kind}s"), getattr(found, f"stored_{kind}s")
        skipped = sum(found.skipped.get(kind, {}).values())
        if planned != stored + skipped:
            message = f"{unit.shard}: {planned} {kind}s planned, {stored} stored and {skipped} skipped"
            yield Fault("wrong_count", message)


def _row_faults(shard: Shard, seen: Scan) -> Iterator[Fault]:
    yield from _feature_faults(shard, "visual", shard.visual, seen)
    if shard.visual_flipped is not None:
        yield from _feature_faults(shard, "visual_flipped", shard.visual_flipped, scan(shard.visual_flipped))
    bad_box = ~np.all(np.isfinite(shard.box) & (shard.box > [-np.inf, -np.inf, 0, 0]), axis=1)
    yield from _person_faults(shard, "bad_box", bad_box, "a box that is not finite or has no area")
    bad_pairs = shard.pair[~np.isfinite(shard.spatial).all(axis=1), 0]
    persons = np.zeros(len(shard.box), bool)
    persons[bad_pairs] = True
    yield from _person_faults(shard, "not_finite_spatial", persons, "a NaN or infinite spatial feature of a pair")


def _feature_faults(shard: Shard, name: str, rows: Visual, seen: Scan) -> Iterator[Fault]:
    if rows.dtype.kind != "f":  # pixels may be all black
        return
    if not seen.finite:
        bad = np.asarray(~np.isfinite(rows).all(axis=1))
        yield from _person_faults(shard, f"not_finite_{name}", bad, "a NaN or infinite feature")
    constant = _constant(rows)
    zero = constant & (rows[:, :1] == 0).any(axis=1)
    yield from _person_faults(shard, f"zero_{name}", zero, "features that are all zero")
    yield from _person_faults(shard, f"constant_{name}", constant & ~zero, "features that are all the same")


def _person_faults(shard: Shard, kind: str, bad: Mask, what: str) -> Iterator[Fault]:
    for row in np.flatnonzero(bad).tolist():
        frame = str(shard.frame_name[np.searchsorted(shard.frame_offset, row, side="right") - 1])
        person = str(shard.person_id[row])
        yield Fault(kind, f"{shard.scene} {frame}: person {person} has {what}", frame=frame, person=person)


def _constant(rows: Visual) -> Mask:
    """(N,) which rows of several values have one value only; most rows are ruled out by their two ends."""
    constant = np.zeros(len(rows), bool)
    if rows.shape[1] > 1:
        suspects = np.flatnonzero(rows[:, 0] == rows[:, -1])
        constant[suspects] = (rows[suspects] == rows[suspects, :1]).all(axis=1)
    return constant
