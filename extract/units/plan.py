"""Plans an extraction before any image is read: which frames, which persons, and how they are split into units."""

import hashlib
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from configs.errors import DataError
from extract.annotations.jrdb import Scene, read_scenes
from extract.images.identity import ImageIdentities
from store.format.manifest import Selection, Unit
from store.format.recipe import PIXEL_DTYPE, Recipe
from store.format.shard import Skipped
from store.tables import Floats, Ints, Tables, paired_persons, persons_per_frame, subset


@dataclass(frozen=True)
class UnitSize:
    """The intended size of a unit.

    A scene's crops are split evenly, so a unit has 0.5 to 1.5 times the intended number of crops, plus at most one
    frame's persons. Small scenes have one smaller unit.
    """

    crops: int = 4096
    pixel_bytes: int = 2**25  # limit for stored crops: writing a unit needs three times its bytes in memory

    def crops_for(self, recipe: Recipe) -> int:
        """The intended number of crops of a unit in a store of `recipe`; 891 for stored crops of 112 pixels."""
        if recipe.dtype != PIXEL_DTYPE:
            return self.crops
        return min(self.crops, max(1, self.pixel_bytes // recipe.visual_dim))


DEFAULT_UNIT_SIZE = UnitSize()


@dataclass(frozen=True)
class PlannedUnit:
    """A run of frames of one scene: everything that its shard is computed from, except the images."""

    tables: Tables  # these frames with the selected persons and their pairs
    people_per_frame: Ints  # (F,) all usable persons of each frame, selected or not
    image_bytes: Ints  # (F,) size of the image file, -1 if there is no such file
    image_ids: NDArray[np.str_] | None  # (F,) see `extract.images.identity`; None if no store is planned
    skipped: tuple[Skipped, ...]  # unusable annotations of these frames

    @property
    def scene(self) -> str:
        """The scene's name."""
        return self.tables.scenes[0]

    @property
    def frames(self) -> int:
        """The number of planned frames."""
        return len(self.tables.frame_name)

    @property
    def persons(self) -> int:
        """The number of planned persons, including those with unusable annotations."""
        return len(self.tables.box) + sum(item.kind == "person" for item in self.skipped)

    @property
    def pairs(self) -> int:
        """The number of planned pairs, including those with unusable annotations."""
        return len(self.tables.pair) + sum(item.kind == "pair" for item in self.skipped)

    def is_planned_image(self, frame: int, size: int, sha256: str) -> bool:
        """Whether the image of frame row `frame` is unchanged since the job was planned."""
        return bool(size == self.image_bytes[frame] if self.image_ids is None else sha256 == self.image_ids[frame])

    def boxes_in(self, frame: int) -> Floats:
        """(P, 4) the boxes of the selected persons in frame row `frame`."""
        return self.tables.box[self.rows_of(frame)]

    def rows_of(self, frame: int) -> slice:
        """The person rows of frame row `frame`."""
        return slice(self.tables.frame_offset[frame], self.tables.frame_offset[frame + 1])


def plan_units(
    data_path: Path,
    selection: Selection,
    scenes: tuple[str, ...] = (),
    crops: int = DEFAULT_UNIT_SIZE.crops,
    identities: ImageIdentities | None = None,
) -> list[PlannedUnit]:
    """Returns the units of the named scenes (default: all scenes), with about `crops` crops each.

    Args:
        identities: of the images, for the units of a store; other units are planned without reading images.

    Raises:
        DataError: a scene does not exist, or its annotations cannot be read; or no person is selected.
    """
    scenes_read = read_scenes(data_path, scenes, identities)
    units = [unit for scene in scenes_read for unit in plan_scene(scene, selection, crops)]
    if not any(unit.persons for unit in units):
        raise DataError(_explain_no_person(data_path, scenes_read, selection))
    return units


def _explain_no_person(data_path: Path, scenes: list[Scene], selection: Selection) -> str:
    persons = sum(len(scene.tables.box) for scene in scenes)
    frames = sum(len(scene.tables.frame_name) for scene in scenes)
    odd = next((f"{scene.first_other} of scene {scene.name}" for scene in scenes if scene.first_other), "")
    if persons and selection.persons == "paired" and not any(len(scene.tables.pair) for scene in scenes):
        return (
            f"no pair is annotated among the {persons} people in {data_path}, and only people in pairs are selected; "
            f"annotate pairs (H-interaction), or extract all people (extract --persons all)"
        )
    if persons:
        return f"no selected frame of {data_path} has a person; use a smaller --frame_interval"
    if odd:
        return f"{data_path} has no person: the label_id of a person is pedestrian:<number>, but the first one is {odd}"
    unusable = next((item for scene in scenes for item in scene.skipped), None)
    if unusable is not None:
        where = f"the {unusable.kind} {unusable.item or unusable.frame} of scene {unusable.scene}"
        return f"{data_path} has no usable person; the first that cannot be used is {where} ({unusable.reason})"
    return f"{data_path} has no person: its {frames} annotated frames are empty; check the annotations"


def plan_scene(scene: Scene, selection: Selection, crops: int) -> list[PlannedUnit]:
    """Returns the units of one scene: contiguous runs of its selected frames with about `crops` crops each."""
    frames = scene.tables.frame_index % selection.frame_interval == 0
    persons = np.ones(len(scene.tables.box), bool)
    if selection.persons == "paired":
        persons = paired_persons(scene.tables)
    tables = subset(scene.tables, frames, persons)
    people_per_frame, image_bytes = persons_per_frame(scene.tables)[frames], scene.image_bytes[frames]
    image_ids = None if scene.image_ids is None else scene.image_ids[frames]
    whole = PlannedUnit(tables, people_per_frame, image_bytes, image_ids, scene.skipped)
    return [_select_run(whole, run) for run in _split_evenly(persons_per_frame(tables), crops)]


def _split_evenly(crops_per_frame: Ints, unit_crops: int) -> list[slice]:
    """Splits frames into contiguous runs of about `unit_crops` crops; returns no run if there are no frames."""
    total = int(crops_per_frame.sum())
    count = max(1, round(total / unit_crops))
    run_of = np.minimum((np.cumsum(crops_per_frame) - crops_per_frame) * count // max(total, 1), count - 1)
    edges = np.flatnonzero(np.diff(run_of, prepend=-1, append=count)).tolist()
    return [slice(start, stop) for start, stop in pairwise(edges)]


def _select_run(whole: PlannedUnit, run: slice) -> PlannedUnit:
    """Returns the frames `run` of the selected frames of a scene."""
    tables = whole.tables
    frames = np.zeros(whole.frames, bool)
    frames[run] = True
    names = set(tables.frame_name[run].tolist())
    return PlannedUnit(
        tables=subset(tables, frames, np.ones(len(tables.box), bool)),
        people_per_frame=whole.people_per_frame[run],
        image_bytes=whole.image_bytes[run],
        image_ids=None if whole.image_ids is None else whole.image_ids[run],
        skipped=tuple(item for item in whole.skipped if item.frame in names),
    )


def manifest_entry(unit: PlannedUnit, recipe: Recipe) -> Unit:
    """Returns the entry in STORE.json of a unit that was planned with the identities of its images.

    `visual_digest` covers everything that the features depend on; `digest` covers pairs, labels and skipped items too.
    """
    tables = unit.tables
    assert unit.image_ids is not None
    values = asdict(recipe)
    ranges = sorted(values.pop("activation_ranges").items())  # of int8 only; without them the digests are as ever
    sha256 = hashlib.sha256(repr(sorted(values.items()) + ranges).encode())
    sha256.update(repr((unit.scene, tables.frame_name.tolist(), unit.image_ids.tolist())).encode())
    for array in (tables.frame_offset, tables.frame_index, tables.box, tables.person_id):
        sha256.update(np.ascontiguousarray(array).tobytes())
    sha256.update(repr([item.frame for item in unit.skipped if item.kind == "frame"]).encode())
    visual_digest = sha256.hexdigest()
    for array in (tables.pair, tables.label, unit.people_per_frame):
        sha256.update(np.ascontiguousarray(array).astype(np.int64).tobytes())
    sha256.update(repr((tables.label_sets, unit.skipped)).encode())
    return Unit(unit.scene, unit.frames, unit.persons, unit.pairs, sha256.hexdigest(), visual_digest)
