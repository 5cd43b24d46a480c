"""STORE.json: the plan of a store, and, once the store is complete, the shards that contain it."""

import json
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar, get_origin

from configs.errors import IntegrityError
from store.files import publish
from store.format.int8_record import Int8Record
from store.format.paths import SHARD_NAME, StorePaths
from store.format.recipe import FIRST_FORMAT, FORMAT, READABLE, Recipe, digest, recipe_differences, value_differences
from store.tables import AXES

BUILDING, COMPLETE = "building", "complete"


@dataclass(frozen=True)
class Selection:
    """Which frames and persons of the data are stored."""

    frame_interval: int  # every n-th annotated frame of a scene
    persons: str  # "all", or "paired": only persons that belong to a pair

    def covers(self, other: "Selection") -> bool:
        """Whether a store of this selection contains everything that `other` selects."""
        return other.frame_interval % self.frame_interval == 0 and self.persons in ("all", other.persons)


@dataclass(frozen=True)
class SceneDigest:
    """Identifies a scene's data, independently of the folder that it is in."""

    labels: str  # sha256 of the annotation file's bytes
    images: str  # sha256 of the names and sha256s of the annotated images; in format 1 of all names and sizes


@dataclass(frozen=True)
class Unit:
    """A run of frames of one scene, planned before anything is computed. Each unit becomes one shard."""

    scene: str
    frames: int
    persons: int
    pairs: int
    digest: str  # of everything that its shard depends on
    visual_digest: str  # of everything that its features depend on: all of that but pairs and labels
    # known once its shard is stored
    shard: str = ""  # file name
    bytes: int = 0
    stored_frames: int = 0
    stored_persons: int = 0
    stored_pairs: int = 0
    zeros: int = 0  # number of feature values that are exactly 0
    skipped: dict[str, dict[str, int]] = field(default_factory=dict)  # kind -> reason -> count

    def planned(self, axis: str) -> int:
        """The number of planned frames, persons or pairs; `axis` is one of store.tables.AXES."""
        return int(getattr(self, f"{axis}s"))

    def stored(self, axis: str) -> int:
        """The number of stored frames, persons or pairs."""
        return int(getattr(self, f"stored_{axis}s"))


Part = TypeVar("Part", Selection, SceneDigest, Unit)


@dataclass(frozen=True)
class Manifest:
    """The content of STORE.json. It has no times, host names or paths, so equal data gives equal bytes."""

    recipe: Recipe
    selection: Selection
    scenes: dict[str, SceneDigest]
    units: tuple[Unit, ...]
    weights: str  # the source of the backbone's weights, for information; the recipe contains their checksum
    state: str = BUILDING
    format: int = FORMAT
    int8: Int8Record | None = None  # for information, like `weights`; int8 stores only

    @property
    def fingerprint(self) -> str:
        """The digest of recipe, selection and data."""
        scenes = {name: asdict(scene) for name, scene in self.scenes.items()}
        return digest({"recipe": self.recipe.to_dict(), "selection": asdict(self.selection), "scenes": scenes})

    @property
    def plan_digest(self) -> str:
        """The digest of all planned units."""
        return digest([unit.digest for unit in self.units])

    def row_starts(self, axis: str) -> list[int]:
        """The first stored row of each unit on `axis`, followed by the number of all stored rows."""
        return list(accumulate((unit.stored(axis) for unit in self.units), initial=0))

    def planned_rows(self) -> dict[str, int]:
        """The number of planned "frames", "persons" and "pairs"."""
        return {f"{axis}s": sum(unit.planned(axis) for unit in self.units) for axis in AXES}

    def stored_rows(self) -> dict[str, int]:
        """The number of stored "frames", "persons" and "pairs"."""
        return {f"{axis}s": sum(unit.stored(axis) for unit in self.units) for axis in AXES}

    def differences(self, wanted: "Manifest") -> list[str]:
        """One text for each difference in recipe, selection and scenes, in this order."""
        texts = recipe_differences(self.recipe, wanted.recipe)
        texts += value_differences(asdict(self.selection), asdict(wanted.selection))
        return texts + self.scene_differences(wanted)

    def scene_differences(self, wanted: "Manifest") -> list[str]:
        """The scenes that `wanted` adds, removes or changes."""
        old, new = self.scenes, wanted.scenes
        both = sorted(set(old) & set(new))
        groups = {
            "added scenes": sorted(set(new) - set(old)),
            "removed scenes": sorted(set(old) - set(new)),
            "changed annotations in": [name for name in both if old[name].labels != new[name].labels],
            "changed images in": [name for name in both if old[name].images != new[name].images],
        }
        return [f"{what} {', '.join(names)}" for what, names in groups.items() if names]

    def completed(self, units: tuple[Unit, ...]) -> "Manifest":
        """This manifest in the complete state, with units that name their shards."""
        return replace(self, units=units, state=COMPLETE)

    def covers(self, wanted: "Manifest") -> bool:
        """Whether a store contains all of `wanted`: same recipe, same data, and an equal or wider selection."""
        same_data = self.recipe == wanted.recipe and self.scenes == wanted.scenes
        return same_data and self.selection.covers(wanted.selection)


def write_manifest(store: Path, manifest: Manifest) -> None:
    """Writes the STORE.json of the store in folder `store`. Raises StorageError."""
    paths = StorePaths(store)
    publish(paths.manifest, manifest_text(manifest), paths.temporary)


def manifest_text(manifest: Manifest) -> bytes:
    """The bytes of STORE.json. Its `checksum` covers all other fields, so any damage is detected."""
    values = asdict(manifest) | {"recipe": manifest.recipe.to_dict()}
    if manifest.int8 is None:
        del values["int8"]
    values |= {"fingerprint": manifest.fingerprint, "plan": manifest.plan_digest}
    return (json.dumps(values | {"checksum": digest(values)}, indent=1, sort_keys=True) + "\n").encode()


def parse_manifest(text: bytes, path: Path, remedy: str) -> Manifest:
    """The manifest in the bytes of a STORE.json; `path` and `remedy` are for the error message.

    Raises:
        IntegrityError: the text is damaged, or of another format version.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path} cannot be read ({error}); {remedy}") from error
    if not isinstance(values, dict) or values.get("format") not in READABLE:
        raise IntegrityError(f"{path} does not have format {FORMAT} or {FIRST_FORMAT}; extract into another --store")
    try:
        manifest = _parse(values)
        intact = manifest_text(manifest) == text
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"{path} has a missing or invalid field: {error}; {remedy}") from error
    if not intact:
        raise IntegrityError(f"{path} contradicts its own fingerprint or checksum; {remedy}")
    return manifest


def _parse(values: dict[str, Any]) -> Manifest:
    """Raises KeyError, TypeError, ValueError or AttributeError if a field is missing or has the wrong type."""
    state = values["state"]
    if state not in (BUILDING, COMPLETE):
        raise ValueError(f"state {state!r}")
    selection = _typed(Selection, values["selection"])
    if selection.frame_interval < 1:
        raise ValueError(f"frame_interval {selection.frame_interval}")
    return Manifest(
        recipe=Recipe.from_dict(values["recipe"]),
        selection=selection,
        scenes={name: _typed(SceneDigest, scene) for name, scene in values["scenes"].items()},
        units=tuple(_parse_unit(unit, state) for unit in values["units"]),
        weights=str(values["weights"]),
        state=state,
        format=values["format"],
        int8=Int8Record.from_dict(values["int8"]) if "int8" in values else None,
    )


def _parse_unit(values: dict[str, Any], state: str) -> Unit:
    """The unit, after checking that its counts are not negative and that its shard has a shard's name."""
    unit = _typed(Unit, {**values, "skipped": {}})
    skipped = values["skipped"]
    counts = [count for reasons in skipped.values() for count in reasons.values()]
    counts += [value for value in vars(unit).values() if isinstance(value, int)]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("the counts of a unit")
    if (state == COMPLETE or unit.shard) and not SHARD_NAME.fullmatch(unit.shard):
        raise ValueError(f"shard name {unit.shard!r}")
    return replace(unit, skipped=skipped)


def _typed(kind: type[Part], values: dict[str, Any]) -> Part:
    """A `kind` whose fields have their declared types. Raises ValueError, KeyError or TypeError if they do not."""
    for item in fields(kind):
        if type(values[item.name]) is not (get_origin(item.type) or item.type):
            raise ValueError(f"{item.name} of {kind.__name__}")
    return kind(**values)
