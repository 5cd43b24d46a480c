"""The work that is done while faults are injected: filling a store or, as a control, appending to one HDF5 file.

Imports only numpy, h5py and `store`, so that a run takes milliseconds.
"""

import os
from pathlib import Path

import h5py
import numpy as np

from store.format.manifest import Manifest, SceneDigest, Selection, Unit
from store.format.recipe import Recipe, digest
from store.format.shard import Shard, Skipped
from store.writer import open_for_writing

RECIPE = Recipe("resnet18", "avgpool", "w" * 64, 8, 32, 0.2, "rule", "bilinear", "imagenet", "float32", "float16", 1)
FRAMES, PEOPLE, PAIRS, DIM = 2, 3, 4, 8  # per unit: frames, people per frame, pairs; width of the features


def make_plan(units: int) -> Manifest:
    """A plan of `units` units, two per scene."""
    planned = [
        Unit(f"scene{n // 2}", FRAMES, FRAMES * PEOPLE + 1, PAIRS, digest(["d", n]), digest(["v", n]))
        for n in range(units)
    ]
    scenes = {unit.scene: SceneDigest(digest([unit.scene]), digest([])) for unit in planned}
    return Manifest(RECIPE, Selection(1, "all"), scenes, tuple(planned), "random")


def shard_of(number: int) -> Shard:
    """The rows of unit `number`, the same in every call."""
    rng = np.random.default_rng(number)
    persons = FRAMES * PEOPLE
    frame = np.repeat(np.arange(FRAMES), PAIRS // FRAMES)
    return Shard(
        scene=f"scene{number // 2}",
        visual=rng.standard_normal((persons, DIM)).astype(np.float16),
        visual_flipped=None,
        box=rng.uniform(1, 200, (persons, 4)),
        person_id=np.arange(persons),
        frame_name=np.array([f"{index:06d}.jpg" for index in range(FRAMES)]),
        frame_index=np.arange(FRAMES, dtype=np.int32),
        frame_size=np.full((FRAMES, 2), 200, np.int32),
        frame_offset=np.arange(FRAMES + 1) * PEOPLE,
        frame_sha256=np.array([digest([index]) for index in range(FRAMES)]),
        pair=np.stack([frame * PEOPLE, frame * PEOPLE + 1 + np.arange(PAIRS) % 2], axis=1),
        spatial=rng.random((PAIRS, 8), np.float32),
        label=np.zeros(PAIRS, np.int32),
        label_sets=(("walking together",),),
        skipped=(Skipped("person", f"scene{number // 2}", "000000.jpg", "9", "box_huge"),),
    )


def fill_store(path: Path, units: int, log: int) -> None:
    """Fills or resumes a store; writes a line to descriptor `log` for each computed and each acknowledged unit."""
    with open_for_writing(path, make_plan(units)) as writer:
        for number in writer.pending:
            os.write(log, f"computed {number}\n".encode())
            writer.commit(number, shard_of(number))
            os.write(log, f"acknowledged {number} {writer.done[number].shard}\n".encode())
        writer.finish()


def append_in_place(path: Path, units: int, log: int) -> None:
    """Appends to the datasets of one open HDF5 file and flushes after each unit, as many tools do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "a") as file:
        if "visual" not in file:
            file.create_dataset("visual", (0, DIM), "f2", maxshape=(None, DIM), chunks=(4, DIM))
        rows = file["visual"]
        for number in range(len(rows) // (FRAMES * PEOPLE), units):
            visual = shard_of(number).visual
            rows.resize(len(rows) + len(visual), axis=0)
            rows[-len(visual) :] = visual
            file.flush()
            os.write(log, f"acknowledged {number} x\n".encode())


WORKLOADS = {"store": fill_store, "in_place": append_in_place}
