"""Opening and loading a store against reading and hashing its bytes.

python -m tests.benchmarks.store [--persons 200000] [--rounds 5] [--out FILE]
"""

import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import click
import numpy as np

from store.manifest import Manifest, SceneDigest, Selection, Unit
from store.reader import load_store, store_info
from store.recipe import Recipe
from store.shard import Shard
from store.writer import open_for_writing
from tests.benchmarks.measure import interleave, report

DIM = 512
UNIT = 4096


@click.command()
@click.option("--persons", default=200_000)
@click.option("--rounds", default=5)
@click.option("--out", type=click.Path(path_type=Path))
def main(persons: int, rounds: int, out: Path | None) -> None:
    """Prints a table and writes JSON."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.store"
        began = perf_counter()
        write_store(path, persons)
        wrote = perf_counter() - began
        ways = {"load": lambda: _load(path), "read and hash": lambda: _read(path), "info": lambda: _info(path)}
        figures = interleave(ways, rounds)
        size = sum(file.stat().st_size for file in (path / "shards").iterdir())
    ratio = figures["load"] / figures["read and hash"]
    rows = [
        (f"writing {size / 1e6:.0f} MB, every unit fsynced", f"{size / 1e6 / wrote:.0f} MB/s", ""),
        ("loading, every byte checked", f"{size / 1e9 / figures['load']:.2f} GB/s", ""),
        ("reading and hashing the same bytes", f"{size / 1e9 / figures['read and hash']:.2f} GB/s", ""),
        ("load / read and hash", f"{ratio:.2f}", "<= 1.5"),
        ("store info", f"{1000 * figures['info']:.1f} ms", "< 1 s"),
    ]
    command = f"python -m tests.benchmarks.store --persons {persons} --rounds {rounds}"
    report(f"Store of {persons:,} persons", rows, {"command": command, "figures": figures | {"ratio": ratio}}, out)


def write_store(path: Path, persons: int) -> None:
    """A store of random features, 20 people a frame, every other one in a pair."""
    recipe = Recipe("resnet18", "avgpool", "0" * 64, DIM, 112, 0.2, "", "", "", "float32", "float16", 1)
    count = -(-persons // UNIT)
    units = tuple(Unit("scene", UNIT // 16, UNIT, UNIT // 2, f"d{n}", f"v{n}") for n in range(count))
    plan = Manifest(recipe, Selection(1, "all"), {"scene": SceneDigest("", "")}, units, "random")
    shard = _shard(np.random.default_rng(0))
    with open_for_writing(path, plan) as writer:
        for number in writer.pending:
            writer.commit(number, replace(shard, visual=np.roll(shard.visual, number, axis=0)))
        writer.finish()


def _shard(rng: np.random.Generator) -> Shard:
    frames, pairs = UNIT // 16, UNIT // 2
    return Shard(
        scene="scene",
        visual=rng.standard_normal((UNIT, DIM), dtype=np.float32).astype(np.float16),
        visual_flipped=None,
        box=np.ones((UNIT, 4)),
        person_id=np.arange(UNIT),
        frame_name=np.array([f"{frame:06d}.jpg" for frame in range(frames)]),
        frame_index=np.arange(frames, dtype=np.int32),
        frame_size=np.full((frames, 2), 3760, np.int32),
        frame_offset=np.arange(frames + 1) * 16,
        frame_sha256=np.array(["0" * 64] * frames),
        pair=np.arange(UNIT).reshape(-1, 2),
        spatial=np.zeros((pairs, 8), np.float32),
        label=np.zeros(pairs, np.int32),
        label_sets=(("walking together",),),
        skipped=(),
    )


def _load(path: Path) -> float:
    began = perf_counter()
    load_store(path)
    return perf_counter() - began


def _read(path: Path) -> float:
    began = perf_counter()
    for file in sorted((path / "shards").iterdir()):
        hashlib.sha256(file.read_bytes()).digest()
    return perf_counter() - began


def _info(path: Path) -> float:
    began = perf_counter()
    store_info(path)
    return perf_counter() - began


if __name__ == "__main__":
    main()
