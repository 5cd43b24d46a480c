"""Loading, verifying and packing a store compared with reading and hashing its bytes.

python -m tests.benchmarks.store [--persons 200000] [--rounds 5] [--out FILE]
"""

import hashlib
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from store.checks.verify import verify
from store.format.manifest import Manifest, SceneDigest, Selection, Unit
from store.format.recipe import Recipe
from store.format.shard import Shard
from store.reader import load_store, store_info
from store.writer import open_for_writing
from tests.benchmarks.measure import interleave, report, seconds_of

DIM = 512
UNIT = 4096
THREADS = 2  # also used by load_store and verify


@click.command()
@click.option("--persons", default=200_000)
@click.option("--rounds", default=5)
@click.option("--out", type=click.Path(path_type=Path))
def main(persons: int, rounds: int, out: Path | None) -> None:
    """Prints a table and writes JSON."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.store"
        write_seconds = seconds_of(lambda: write_store(path, persons))
        seconds = interleave(_measures(path), rounds)
        size = sum(file.stat().st_size for file in (path / "shards").iterdir())
        pack_seconds, pack_memory = measure_pack(path)
    speeds = {name: f"{size / 1e9 / value:.2f} GB/s" for name, value in seconds.items()}
    ratios = {name: seconds[name] / seconds["read and hash"] for name in ("load", "verify")}
    ratios["load, kept"] = seconds["load"] / seconds["read, hash and keep"]
    rows = [
        (f"writing {size / 1e6:.0f} MB, every unit fsynced", f"{size / 1e6 / write_seconds:.0f} MB/s", ""),
        (f"loading, every byte checked ({THREADS} threads)", speeds["load"], ""),
        (f"verifying ({THREADS} threads)", speeds["verify"], ""),
        (f"reading and hashing the same bytes, {THREADS} threads", speeds["read and hash"], ""),
        ("the same, kept in newly allocated memory, as in loading", speeds["read, hash and keep"], ""),
        ("reading and hashing, 1 thread", speeds["read and hash, 1 thread"], ""),
        (f"load / read and hash, both {THREADS} threads", f"{ratios['load']:.2f}", "<= 1.5"),
        (f"load / read, hash and keep, both {THREADS} threads", f"{ratios['load, kept']:.2f}", "<= 1.5"),
        (f"verify / read and hash, both {THREADS} threads", f"{ratios['verify']:.2f}", ""),
        ("load / read and hash in 1 thread", f"{seconds['load'] / seconds['read and hash, 1 thread']:.2f}", ""),
        ("packing, with a comparison before publication", f"{pack_seconds:.1f} s, {pack_memory:.0f} MB of memory", ""),
        ("store info", f"{1000 * seconds['info']:.1f} ms", "< 1 s"),
    ]
    command = f"python -m tests.benchmarks.store --persons {persons} --rounds {rounds}"
    report(f"Store of {persons:,} persons", rows, {"command": command, "figures": seconds | {"ratios": ratios}}, out)


def _measures(path: Path) -> dict[str, Callable[[], float]]:
    """Seconds of each operation on the store."""
    return {
        "load": lambda: seconds_of(lambda: load_store(path)),
        "verify": lambda: seconds_of(lambda: verify(path)),
        "read and hash": lambda: seconds_of(lambda: _read_and_hash(path, THREADS)),
        "read, hash and keep": lambda: seconds_of(lambda: _read_hash_and_keep(path, THREADS)),
        "read and hash, 1 thread": lambda: seconds_of(lambda: _read_and_hash(path, 1)),
        "info": lambda: seconds_of(lambda: store_info(path)),
    }


def write_store(path: Path, persons: int) -> None:
    """Writes a store of random features with 16 people per frame and one pair per two people."""
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


def _read_and_hash(path: Path, threads: int) -> None:
    """Reads and hashes every shard into a buffer that each thread reuses: the lower limit of a check of all bytes."""
    local = threading.local()

    def read(path: Path) -> None:
        if not hasattr(local, "buffer"):
            local.buffer = memoryview(bytearray(2**24))
        with path.open("rb", buffering=0) as file:
            size = file.readinto(local.buffer)
        hashlib.sha256(local.buffer[:size]).digest()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, sorted((path / "shards").iterdir())))


def _read_hash_and_keep(path: Path, threads: int) -> None:
    """As `_read_and_hash`, but keeps all bytes in one new array: the lower limit of loading."""
    files = sorted((path / "shards").iterdir())
    ends = np.cumsum([0] + [file.stat().st_size for file in files]).tolist()
    content = np.empty(ends[-1], np.uint8)

    def read(number: int) -> None:
        part = content[ends[number] : ends[number + 1]].data
        with files[number].open("rb", buffering=0) as file:
            file.readinto(part)
        hashlib.sha256(part).digest()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, range(len(files))))


def measure_pack(path: Path) -> tuple[float, float]:
    """Packs a store in a new process; returns seconds, and MB of memory in addition to that after the imports."""
    code = (
        "import sys, time; from pathlib import Path; from store.pack import pack_store;"
        "lines = lambda: Path('/proc/self/status').read_text().splitlines();"
        "peak = lambda: next(int(line.split()[1]) for line in lines() if line.startswith('VmHWM'));"
        "before, start = peak(), time.perf_counter(); pack_store(Path(sys.argv[1]), Path(sys.argv[2]));"
        "print(time.perf_counter() - start, (peak() - before) * 1024 / 1e6)"
    )
    out = path.with_suffix(".h5")
    done = subprocess.run([sys.executable, "-c", code, path, out], check=True, capture_output=True, text=True)
    out.unlink()
    seconds, megabytes = done.stdout.split()
    return float(seconds), float(megabytes)


if __name__ == "__main__":
    main()
