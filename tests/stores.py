"""Store and shard fixtures: plans, shards, damage, and forged shards."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from store.files import sha256
from store.format.manifest import Manifest, SceneDigest, Selection, Unit, write_manifest
from store.format.recipe import Recipe, digest
from store.format.shard import Shard, Skipped
from store.format.shard_file import read_shard, shard_image
from store.format.units import describe_stored
from store.open import read_manifest
from store.writer import open_for_writing


def make_shard(frames: int = 3, people: int = 4, pairs: int = 5, views: int = 1, seed: int = 0, dim: int = 8) -> Shard:
    """A shard of random rows."""
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


def assert_equal(one: Shard, other: Shard) -> None:
    for item in fields(Shard):
        mine, theirs = getattr(one, item.name), getattr(other, item.name)
        if isinstance(mine, np.ndarray):
            assert mine.shape == theirs.shape, item.name
            assert mine.dtype.kind == theirs.dtype.kind, item.name
            np.testing.assert_array_equal(mine, theirs)
        else:
            assert mine == theirs, item.name


SIZES = st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 6), st.integers(1, 2), st.integers(0, 99))

RECIPE = Recipe("resnet18", "avgpool", "w" * 64, 8, 32, 0.2, "rule", "bilinear", "imagenet", "float32", "float16", 1)
UNITS = 5


def shard_of(number: int) -> Shard:
    """The rows of unit `number`, always the same."""
    rng = np.random.default_rng(number)
    shard = make_shard(frames=2, people=3, pairs=4, seed=number)
    frame = np.repeat([0, 1], 2)
    pair = np.stack([frame * 3 + rng.integers(0, 2, 4), frame * 3 + 2], axis=1)
    skipped = (Skipped("person", f"scene{number // 2}", "0.jpg", "9", "box_huge"),)
    return replace(shard, scene=f"scene{number // 2}", pair=pair, skipped=skipped)


def make_plan(units: int = UNITS, **selection: Any) -> Manifest:
    """A plan of so many units, two a scene."""
    planned = [
        Unit(f"scene{number // 2}", 2, 7, 4, digest(["d", number]), digest(["v", number])) for number in range(units)
    ]
    scenes = {unit.scene: SceneDigest(digest([unit.scene]), digest([])) for unit in planned}
    return Manifest(
        RECIPE, Selection(**{"frame_interval": 1, "persons": "all"} | selection), scenes, tuple(planned), "x"
    )


def fill(path: Path, plan: Manifest, most: int = 10**9, update: bool = False) -> int:
    """Commits at most so many units, finishes where all are there; returns how many were computed."""
    with open_for_writing(path, plan, update) as writer:
        pending = writer.pending[:most]
        for number in pending:
            writer.commit(number, shard_of(number))
        if not writer.pending:
            writer.finish()
        return len(pending)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "truncated": cut,
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "renamed": lambda path: path.rename(path.with_name("u00000009-" + "0" * 64 + ".h5")),
    "folder": lambda path: (path.unlink(), path.mkdir()),
}


def shard_path(path: Path, number: int) -> Path:
    return path / "shards" / read_manifest(path).units[number].shard


def forge(path: Path, number: int, change: Callable[[Shard], Shard], **unit: Any) -> None:
    """Puts another shard in a unit's place, every checksum made to fit, as a bug in the writer would."""
    manifest = read_manifest(path)
    shard = change(read_shard(shard_path(path, number)))
    image = shard_image(shard)
    name = f"u{number:08d}-{sha256(image)}.h5"
    shard_path(path, number).unlink()
    (path / "shards" / name).write_bytes(image)
    new: Unit = replace(describe_stored(manifest.units[number], name, len(image), shard), **unit)
    units = (*manifest.units[:number], new, *manifest.units[number + 1 :])
    write_manifest(path, replace(manifest, units=units))


def with_row(value: float, columns: slice = slice(None), dtype: str = "float16") -> Callable[[Shard], Shard]:
    def change(shard: Shard) -> Shard:
        visual = shard.visual.astype(dtype)
        visual[4, columns] = value
        return replace(shard, visual=visual)

    return change


MANIFEST_DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "flipped": lambda file: file.write_bytes(file.read_bytes().replace(b"resnet18", b"resnet34")),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:200]),
}
