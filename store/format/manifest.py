"""STORE.json: what a store is meant to hold, and, once complete, which shards hold it."""

import json
import re
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_origin

from configs.errors import IncompleteError, IntegrityError, StoreError
from store.files import publish
from store.format.packed_header import REMEDY, is_packed, read_header
from store.format.recipe import FORMAT, Recipe, digest, recipe_differences

BUILDING, COMPLETE = "building", "complete"
NAME = "STORE.json"
SHARD_NAME = re.compile(r"u[0-9]{8,}-[0-9a-f]{64}\.h5")  # the unit's number, the sha256 of the file
_REMEDY = "run `stage2 store repair STORE --data_path DATA`, which makes this file anew and keeps the shards"


@dataclass(frozen=True)
class Selection:
    """Which frames and persons of the data are stored."""

    frame_interval: int  # every n-th annotated frame of a scene
    persons: str  # "all", or "paired": only those that stand in a pair

    def serves(self, other: "Selection") -> bool:
        """Whether a store of this selection holds everything of `other`."""
        return other.frame_interval % self.frame_interval == 0 and self.persons in ("all", other.persons)


@dataclass(frozen=True)
class SceneDigest:
    """What identifies a scene's data wherever its folder lies."""

    labels: str  # sha256 of the annotation file's bytes
    images: str  # sha256 of the image files' names and sizes


@dataclass(frozen=True)
class Unit:
    """A fixed run of frames of one scene, planned before anything is computed; one unit makes one shard."""

    scene: str
    frames: int
    persons: int
    pairs: int
    digest: str  # of everything that its shard depends on
    visual_digest: str  # of what its features depend on: all but pairs and labels
    # known once its shard is committed
    shard: str = ""  # file name
    bytes: int = 0
    stored_frames: int = 0
    stored_persons: int = 0
    stored_pairs: int = 0
    zeros: int = 0  # feature values that are exactly 0
    skipped: dict[str, dict[str, int]] = field(default_factory=dict)  # kind -> reason -> count


Part = TypeVar("Part", Selection, SceneDigest, Unit)


@dataclass(frozen=True)
class Manifest:
    """The content of STORE.json. Without times, host names and paths: the same data gives the same bytes."""

    recipe: Recipe
    selection: Selection
    scenes: dict[str, SceneDigest]
    units: tuple[Unit, ...]
    weights: str  # where the backbone's weights came from, for people; the recipe holds their checksum
    state: str = BUILDING
    format: int = FORMAT

    @property
    def fingerprint(self) -> str:
        """The digest of recipe, selection and data."""
        scenes = {name: asdict(scene) for name, scene in self.scenes.items()}
        return digest({"recipe": self.recipe.to_dict(), "selection": asdict(self.selection), "scenes": scenes})

    @property
    def plan_digest(self) -> str:
        """The digest of all units as planned."""
        return digest([unit.digest for unit in self.units])

    def differences(self, wanted: "Manifest") -> list[str]:
        """One text for each thing in which this store is not the wanted one; recipe and selection first."""
        texts = recipe_differences(self.recipe, wanted.recipe)
        mine, theirs = asdict(self.selection), asdict(wanted.selection)
        texts += [f"{name} {mine[name]}, not {theirs[name]}" for name in mine if mine[name] != theirs[name]]
        return texts + self.scene_differences(wanted)

    def scene_differences(self, wanted: "Manifest") -> list[str]:
        """The scenes that were added, removed or changed since this store was made."""
        here, there = self.scenes, wanted.scenes
        both = sorted(set(here) & set(there))
        groups = {
            "added scenes": sorted(set(there) - set(here)),
            "removed scenes": sorted(set(here) - set(there)),
            "changed annotations in": [name for name in both if here[name].labels != there[name].labels],
            "changed images in": [name for name in both if here[name].images != there[name].images],
        }
        return [f"{what} {', '.join(names)}" for what, names in groups.items() if names]

    def completed(self, units: tuple[Unit, ...]) -> "Manifest":
        """This manifest with all its shards named."""
        return replace(self, units=units, state=COMPLETE)


def shard_files(store: Path) -> list[Path]:
    """Whatever lies in the store's folder of shards under a shard's kind of name, in order."""
    return sorted((store / "shards").glob("u*.h5"))


def write_manifest(store: Path, manifest: Manifest) -> None:
    """Publishes STORE.json. Raises StorageError."""
    publish(store / NAME, manifest_text(manifest), store / ".tmp")


def manifest_text(manifest: Manifest) -> bytes:
    """The bytes of STORE.json; its `checksum` covers all the rest, so that no damage of it goes unseen."""
    values = asdict(manifest) | {"fingerprint": manifest.fingerprint, "plan": manifest.plan_digest}
    return (json.dumps(values | {"checksum": digest(values)}, indent=1, sort_keys=True) + "\n").encode()


def read_manifest(store: Path) -> Manifest:
    """The manifest of the store in folder `store`, or of the packed store in file `store`.

    Raises:
        StoreError: there is no store.
        IntegrityError: STORE.json is damaged, or another version's.
    """
    if store.is_file():
        return parse_manifest(read_header(store).text, store, REMEDY)
    path = store / NAME
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(f"{store} is no feature store (it has no {NAME}); make one with `stage2 extract`") from error
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read ({error}); {_REMEDY}") from error
    return parse_manifest(text, path, _REMEDY)


def is_store(path: Path) -> bool:
    """Whether something stands at `path` that calls itself a store, damaged or not."""
    return is_packed(path) or (path / NAME).exists()


def parse_manifest(text: bytes, path: Path, remedy: str) -> Manifest:
    """The manifest in the bytes of a STORE.json; `path` and `remedy` are for the error.

    Raises:
        IntegrityError: the text is damaged, or another version's.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path} cannot be read ({error}); {remedy}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise IntegrityError(f"{path} is of another format than {FORMAT}; extract into another --store")
    try:
        manifest = _parse(values)
        good = manifest_text(manifest) == text
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"{path} lacks or misstates {error}; {remedy}") from error
    if not good:
        raise IntegrityError(f"{path} contradicts its own fingerprint or checksum; {remedy}")
    return manifest


def read_complete_manifest(store: Path) -> Manifest:
    """The manifest of a finished store. Raises as `read_manifest`, and IncompleteError where it is unfinished."""
    manifest = read_manifest(store)
    if manifest.state != COMPLETE:
        raise IncompleteError(f"the extraction of {store} has not finished; run the same `stage2 extract` again")
    return manifest


def _parse(values: dict[str, Any]) -> Manifest:
    """Raises KeyError, TypeError, ValueError or AttributeError where a field is missing or of another type."""
    state = values["state"]
    if state not in (BUILDING, COMPLETE):
        raise ValueError(f"the state {state!r}")
    selection = _typed(Selection, values["selection"])
    if selection.frame_interval < 1:
        raise ValueError("the frame interval")
    return Manifest(
        recipe=Recipe.from_dict(values["recipe"]),
        selection=selection,
        scenes={name: _typed(SceneDigest, scene) for name, scene in values["scenes"].items()},
        units=tuple(_unit(unit, state) for unit in values["units"]),
        weights=str(values["weights"]),
        state=state,
    )


def _unit(values: dict[str, Any], state: str) -> Unit:
    """A unit whose counts are counts and whose shard, where it has one, is named as shards are."""
    unit = _typed(Unit, {**values, "skipped": {}})
    skipped = values["skipped"]
    counts = [count for reasons in skipped.values() for count in reasons.values()]
    counts += [value for value in vars(unit).values() if isinstance(value, int)]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("a unit's counts")
    if (state == COMPLETE or unit.shard) and not SHARD_NAME.fullmatch(unit.shard):
        raise ValueError(f"the shard name {unit.shard!r}")
    return replace(unit, skipped=skipped)


def _typed(kind: type[Part], values: dict[str, Any]) -> Part:
    """A `kind` of exactly its fields, each of its own type. Raises ValueError, KeyError or TypeError."""
    for item in fields(kind):
        if type(values[item.name]) is not (get_origin(item.type) or item.type):
            raise ValueError(f"{item.name} of {kind.__name__}")
    return kind(**values)


STORES = Path("stores")


def store_for(plan: Manifest, folder: Path = STORES) -> Path:
    """A finished store under `folder`, packed or not, that holds all of `plan`; else the path where its own belongs."""
    own = folder / f"{plan.recipe.backbone}-{plan.recipe.crop_size}px-{plan.fingerprint[:12]}.store"
    if (own / "STORE.json").exists():
        return own
    for path in sorted([*folder.glob("*.store"), *folder.glob("*.h5")]):
        try:
            found = read_manifest(path)
        except StoreError:  # a damaged neighbour is not ours to judge
            continue
        if found.state == COMPLETE and serves(found, plan):
            return path
    return own


def serves(found: Manifest, plan: Manifest) -> bool:
    """Whether a store holds all that `plan` asks for: the same recipe and data, its selection or a wider one."""
    return found.recipe == plan.recipe and found.scenes == plan.scenes and found.selection.serves(plan.selection)
