"""Plans, shards and stores for tests, and ways to damage them."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from store.files import sha256
from store.format.manifest import Manifest, SceneDigest, Selection, Unit, write_manifest
from store.format.paths import shard_name
from store.format.recipe import Recipe, digest
from store.format.shard import Shard, Skipped
from store.format.shard_file import read_shard, shard_image
from store.format.units import describe_stored
from store.open import read_manifest
from store.writer import open_for_writing


def make_shard(frames: int = 3, people: int = 4, pairs: int = 5, views: int = 1, seed: int = 0, dim: int = 8) -> Shard:
    """A shard of random rows, with `people` persons in each frame."""
    rng = np.random.default_rng(seed)
    persons = frames * people
    visual = rng.standard_normal((persons, dim)).astype(np.float16)
    pairs = pairs if persons else 0
    return Shard(
        scene="café-2019_0",
        visual=visual,
        visual_flipped=visual[:, ::-1].copy() if views == 2 else None,
        box=rng.uniform(-10, 200, (persons, 4)),
        person_id=rng.integers(0, 2**60, persons),
        frame_name=np.array([f"{index:06d}é.jpg" for index in range(frames)], np.str_),
        frame_index=np.arange(frames, dtype=np.int32),
        frame_size=rng.integers(1, 4000, (frames, 2)).astype(np.int32),
        frame_offset=np.arange(frames + 1, dtype=np.int64) * people,
        frame_sha256=np.array([sha256(bytes([index])) for index in range(frames)], np.str_),
        pair=rng.integers(0, max(persons, 1), (pairs, 2)),
        spatial=rng.random((pairs, 8), np.float32),
        label=rng.integers(0, 2, pairs).astype(np.int32),
        label_sets=(("walking together",), ("conversation", "sitting together")),
        skipped=(Skipped("frame", "café-2019_0", "9.jpg", "", "image_missing"),) * (seed % 3),
        attributes={"digest": "d", "visual_digest": "v", "recipe": "r"},
    )


# arguments of make_shard: frames, people, pairs, views, seed
SHARD_SIZES = st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 6), st.integers(1, 2), st.integers(0, 99))


def assert_same_shard(actual: Shard, expected: Shard) -> None:
    """All fields are equal; arrays also in shape and numpy kind."""
    for item in fields(Shard):
        value, wanted = getattr(actual, item.name), getattr(expected, item.name)
        if isinstance(wanted, np.ndarray):
            assert value.shape == wanted.shape, item.name
            assert value.dtype.kind == wanted.dtype.kind, item.name
            np.testing.assert_array_equal(value, wanted)
        else:
            assert value == wanted, item.name


RECIPE = Recipe("resnet18", "avgpool", "w" * 64, 8, 32, 0.2, "rule", "bilinear", "imagenet", "float32", "float16", 1)
UNITS = 5


def unit_shard(number: int) -> Shard:
    """The rows of unit `number` of `make_plan`; the same in every call."""
    rng = np.random.default_rng(number)
    shard = make_shard(frames=2, people=3, pairs=4, seed=number)
    frame = np.repeat([0, 1], 2)
    pair = np.stack([frame * 3 + rng.integers(0, 2, 4), frame * 3 + 2], axis=1)
    skipped = (Skipped("person", f"scene{number // 2}", "0.jpg", "9", "box_huge"),)
    return replace(shard, scene=f"scene{number // 2}", pair=pair, skipped=skipped)


def make_plan(units: int = UNITS, **selection: Any) -> Manifest:
    """A plan of `units` units, two per scene; `selection` are fields of Selection."""
    planned = [
        Unit(f"scene{number // 2}", 2, 7, 4, digest(["d", number]), digest(["v", number])) for number in range(units)
    ]
    scenes = {unit.scene: SceneDigest(digest([unit.scene]), digest([])) for unit in planned}
    return Manifest(
        RECIPE, Selection(**{"frame_interval": 1, "persons": "all"} | selection), scenes, tuple(planned), "x"
    )


def write_units(
    path: Path, plan: Manifest, limit: int = 10**9, update: bool = False, remove_missing: bool = False
) -> int:
    """Writes up to `limit` pending units, and finishes the store if none is left; returns how many were written."""
    with open_for_writing(path, plan, update, remove_missing) as writer:
        pending = writer.pending[:limit]
        for number in pending:
            writer.commit(number, unit_shard(number))
        if not writer.pending:
            writer.finish()
        return len(pending)


def flip_bit(path: Path) -> None:
    """Flips one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": flip_bit,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "renamed": lambda path: path.rename(path.with_name("u00000009-" + "0" * 64 + ".h5")),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}

MANIFEST_DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "flipped": lambda file: file.write_bytes(file.read_bytes().replace(b"resnet18", b"resnet34")),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:200]),
}


def shard_path(path: Path, number: int) -> Path:
    """The file of unit `number`'s shard."""
    return path / "shards" / read_manifest(path).units[number].shard


def replace_shard(path: Path, number: int, change: Callable[[Shard], Shard], **unit: Any) -> None:
    """Changes the shard of a unit and updates all checksums, as a bug in the writer would.

    Args:
        unit: fields of the unit in STORE.json that get a different value than the changed shard implies.
    """
    manifest = read_manifest(path)
    shard = change(read_shard(shard_path(path, number)))
    image = shard_image(shard)
    entry = describe_stored(manifest.units[number], shard_name(number, sha256(image)), len(image), shard)
    replace_shard_file(path, number, image, replace(entry, **unit))


def replace_shard_file(path: Path, number: int, data: bytes, unit: Unit | None = None) -> None:
    """Replaces the file of a unit's shard by `data`, under a name that matches it.

    Args:
        unit: the unit's new entry in STORE.json; None to change its file name and size only.
    """
    manifest = read_manifest(path)
    name = shard_name(number, sha256(data))
    shard_path(path, number).unlink()
    (path / "shards" / name).write_bytes(data)
    new = unit or replace(manifest.units[number], shard=name, bytes=len(data))
    write_manifest(path, replace(manifest, units=(*manifest.units[:number], new, *manifest.units[number + 1 :])))


def with_row(value: float, columns: slice = slice(None), dtype: str = "float16") -> Callable[[Shard], Shard]:
    """A change for `replace_shard` that sets features of the fifth person to `value`."""

    def change(shard: Shard) -> Shard:
        visual = shard.visual.astype(dtype)
        visual[4, columns] = value
        return replace(shard, visual=visual)

    return change
