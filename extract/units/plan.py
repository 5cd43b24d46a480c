"""Settles what an extraction will do before the first crop is forwarded: which frames, which people, which units."""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from configs.errors import TooManySkippedError
from extract.annotations.jrdb import Scene, read_scenes
from extract.backbones.weights import LoadedBackbone, state_sha256
from extract.images.crops import BOX_RULE, INTERPOLATION, PADDING
from store.format.manifest import Selection, Unit
from store.format.recipe import CROPS, PIXEL_DTYPE, Recipe
from store.format.shard import Skipped
from store.tables import Ints, Tables, paired_persons, persons_per_frame, subset

UNIT_CROPS = 4096  # aimed at; a scene's crops are shared out evenly, so a unit has 2,000 to 6,200, small scenes less
UNIT_PIXELS = 2**25  # bytes, aimed at where the crops themselves are stored


@dataclass(frozen=True)
class PlannedUnit:
    """A run of frames of one scene with everything that its shard will be made from."""

    tables: Tables  # one scene, these frames, the selected persons
    people: Ints  # (F,) how many people each frame has, selected or not
    image_bytes: Ints  # (F,) -1 where there is no image
    skipped: tuple[Skipped, ...]  # what reading the annotations left out

    @property
    def scene(self) -> str:
        """The scene's name."""
        return self.tables.scenes[0]

    @property
    def frames(self) -> int:
        """How many frames are planned."""
        return len(self.tables.frame_name)

    @property
    def persons(self) -> int:
        """How many persons are planned, those that reading the annotations left out included."""
        return len(self.tables.box) + sum(item.kind == "person" for item in self.skipped)

    @property
    def pairs(self) -> int:
        """How many pairs are planned, those that reading the annotations left out included."""
        return len(self.tables.pair) + sum(item.kind == "pair" for item in self.skipped)


def make_recipe(loaded: LoadedBackbone, crop_size: int, dtype: str, views: int, precision: str) -> Recipe:
    """The recipe of features by this backbone with this project's crops."""
    return Recipe(
        backbone=loaded.backbone.name,
        layer=loaded.backbone.layer,
        weights_sha256=loaded.sha256,
        visual_dim=loaded.backbone.out_dim,
        crop_size=crop_size,
        padding=PADDING,
        box_rule=BOX_RULE,
        interpolation=INTERPOLATION,
        normalisation=loaded.backbone.normalisation,
        precision=precision,
        dtype=dtype,
        views=views,
    )


def crop_recipe(crop_size: int) -> Recipe:
    """The recipe of this project's crops themselves, as rows of uint8 in (3, S, S) order."""
    return Recipe(
        backbone=CROPS,
        layer="pixels",
        weights_sha256=state_sha256({}),
        visual_dim=3 * crop_size**2,
        crop_size=crop_size,
        padding=PADDING,
        box_rule=BOX_RULE,
        interpolation=INTERPOLATION,
        normalisation="none",
        precision="float32",
        dtype=PIXEL_DTYPE,
        views=1,
    )


def unit_crops(recipe: Recipe) -> int:
    """How many crops a unit of a store of `recipe` aims at.

    The crops themselves are as many as UNIT_PIXELS bytes hold (891 of 112 pixels), so a unit has at most 1.5 times
    that, 48 MiB, and one frame's people more. Writing one takes three times its bytes.
    """
    return min(UNIT_CROPS, max(1, UNIT_PIXELS // recipe.visual_dim)) if recipe.dtype == PIXEL_DTYPE else UNIT_CROPS


def plan_units(
    data_path: Path, selection: Selection, scenes: tuple[str, ...] = (), crops: int | None = None
) -> list[PlannedUnit]:
    """All units of the data, or those of the named scenes, of about `crops` crops each. Raises DataError."""
    aim = UNIT_CROPS if crops is None else crops
    return [unit for scene in read_scenes(data_path, scenes) for unit in plan_scene(scene, selection, aim)]


def plan_scene(scene: Scene, selection: Selection, crops: int) -> list[PlannedUnit]:
    """The units of one scene: contiguous runs of its selected frames with about `crops` crops each."""
    frames = scene.tables.frame_index % selection.frame_interval == 0
    persons = np.ones(len(scene.tables.box), bool)
    if selection.persons == "paired":
        persons = paired_persons(scene.tables)
    tables = subset(scene.tables, frames, persons)
    people, image_bytes = persons_per_frame(scene.tables)[frames], scene.image_bytes[frames]
    runs = _runs(persons_per_frame(tables), crops)
    return [_take(tables, people, image_bytes, scene.skipped, run) for run in runs]


def _runs(crops: Ints, aim: int) -> list[slice]:
    """Cuts frames with so many crops each into runs of about `aim`; no frames, no run."""
    total = int(crops.sum())
    count = max(1, round(total / aim))
    run_of = np.minimum((np.cumsum(crops) - crops) * count // max(total, 1), count - 1)
    edges = np.flatnonzero(np.diff(run_of, prepend=-1, append=count)).tolist()
    return [slice(start, stop) for start, stop in pairwise(edges)]


def _take(tables: Tables, people: Ints, image_bytes: Ints, skipped: tuple[Skipped, ...], run: slice) -> PlannedUnit:
    frames = np.zeros(len(people), bool)
    frames[run] = True
    names = set(tables.frame_name[run].tolist())
    return PlannedUnit(
        tables=subset(tables, frames, np.ones(len(tables.box), bool)),
        people=people[run],
        image_bytes=image_bytes[run],
        skipped=tuple(item for item in skipped if item.frame in names),
    )


def describe(unit: PlannedUnit, recipe: Recipe) -> Unit:
    """The unit as STORE.json names it."""
    tables = unit.tables
    total = hashlib.sha256(repr(sorted(asdict(recipe).items())).encode())
    total.update(repr((unit.scene, tables.frame_name.tolist(), unit.image_bytes.tolist())).encode())
    for array in (tables.frame_offset, tables.frame_index, tables.box, tables.person_id):
        total.update(np.ascontiguousarray(array).tobytes())
    total.update(repr([item.frame for item in unit.skipped if item.kind == "frame"]).encode())
    visual_digest = total.hexdigest()
    for array in (tables.pair, tables.label, unit.people):
        total.update(np.ascontiguousarray(array).astype(np.int64).tobytes())
    total.update(repr((tables.label_sets, unit.skipped)).encode())
    return Unit(unit.scene, unit.frames, unit.persons, unit.pairs, total.hexdigest(), visual_digest)


KINDS = ("frame", "person", "pair")
Reasons = Counter[tuple[str, str]]  # (kind, reason) -> count


def known_skips(units: Iterable[PlannedUnit]) -> Reasons:
    """What is known to be left out before any image is read: unusable annotations and absent images."""
    counts: Reasons = Counter()
    for unit in units:
        counts.update((item.kind, item.reason) for item in unit.skipped)
        broken = [item.frame for item in unit.skipped if item.kind == "frame"]
        missing = (unit.image_bytes < 0) & ~np.isin(unit.tables.frame_name, broken)
        counts["frame", "image_missing"] += int(missing.sum())
        counts["person", "image_missing"] += int(
            (unit.tables.frame_offset[1:] - unit.tables.frame_offset[:-1])[missing].sum()
        )
        counts["pair", "image_missing"] += int(missing[unit.tables.pair_frame].sum())
    return counts


def stored_skips(units: Iterable[Unit]) -> Reasons:
    """What committed units left out."""
    counts: Reasons = Counter()
    for unit in units:
        for kind, reasons in unit.skipped.items():
            counts.update({(kind, reason): count for reason, count in reasons.items()})
    return counts


def planned_items(units: Collection[PlannedUnit] | Collection[Unit]) -> dict[str, int]:
    """Kind -> how many items are planned."""
    return {kind: sum(getattr(unit, f"{kind}s") for unit in units) for kind in KINDS}


def check_limit(skipped: Reasons, planned: dict[str, int], limit: float) -> None:
    """Raises TooManySkippedError, with the reasons, where more than `limit` of any kind of item is left out."""
    for kind in KINDS:
        reasons = {reason: count for (of, reason), count in skipped.most_common() if of == kind and count}
        if sum(reasons.values()) > limit * planned[kind]:
            listed = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
            raise TooManySkippedError(
                f"{sum(reasons.values())} of {planned[kind]} planned {kind}s cannot be stored ({listed}), more than "
                f"--max_skipped {limit:g} allows; mend the data, or raise --max_skipped"
            )
