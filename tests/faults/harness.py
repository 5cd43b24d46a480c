"""Runs the workload under one fault after another and checks what is promised."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.faults.workload import FRAMES, PEOPLE, shard_of

ROOT = Path(__file__).parent.parent.parent
WRITE, FSYNC, RENAME, CREATE, UNLINK, MKDIR = (1 << bit for bit in range(6))
WRITING = WRITE | FSYNC | RENAME
ALL = 63
NONE, KILL_BEFORE, KILL_AFTER, TORN, ERROR, SHORT, FULL = range(7)
ALWAYS = 10**9


@dataclass(frozen=True)
class Fault:
    """From call number `at` (1 first) of the `calls` on, `times` calls suffer `kind`; errors have the errno `code`."""

    calls: int
    kind: int
    at: int
    code: int = 0
    times: int = 1

    def values(self) -> list[int]:
        """As the library takes them."""
        return [self.calls, self.kind, self.code, self.at, self.times]


@dataclass
class Outcome:
    """What became of one run: its exit status (negative: the signal) and what its child said."""

    status: int
    acknowledged: list[str] = field(default_factory=list)  # shard names
    computed: int = 0
    calls: int = 0
    error: str = ""


class Zygote:
    """The forking process; one job at a time."""

    def __init__(self, library: Path) -> None:
        environment = os.environ | {"LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, path: Path, units: int, fault: Fault | None = None, work: str = "store", **more: Any) -> Outcome:
        """Fills `path`, with faults in its folder's calls where one is given."""
        assert self._process.stdin is not None and self._process.stdout is not None
        job = {"work": work, "path": str(path), "root": str(path), "units": units} | more
        self._process.stdin.write(json.dumps(job | ({"fault": fault.values()} if fault else {})) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        outcome = Outcome(answer["status"])
        for line in answer["lines"]:
            word, _, rest = line.partition(" ")
            if word == "acknowledged":
                outcome.acknowledged.append(rest.split()[1])
            outcome.computed += word == "computed"
            outcome.calls = int(rest) if word == "calls" else outcome.calls
            outcome.error = rest if word == "error" else outcome.error
        return outcome

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def content(path: Path) -> dict[str, bytes]:
    """All that a store promises to hold."""
    files = [path / "STORE.json", path / "skipped.jsonl", *(path / "shards").iterdir()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files if file.is_file()}


def leftovers(path: Path) -> list[str]:
    """Temporary files in a store."""
    return [str(file) for file in path.rglob("*") if file.is_file() and file.name.endswith(".tmp")]


@dataclass
class Trial:
    """A store under one fault, and what was found wrong afterwards."""

    zygote: Zygote
    path: Path
    units: int
    whole: dict[str, bytes]  # of an uninterrupted store

    def run(self, fault: Fault | None, **more: Any) -> tuple[Outcome, list[str]]:
        """One run under `fault`, then one without; the promises that were broken, in words."""
        shutil.rmtree(self.path, ignore_errors=True)
        outcome = self.zygote.run(self.path, self.units, fault, **more)
        broken = self._after_fault(outcome)
        again = self.zygote.run(self.path, self.units)
        if again.status != 0:
            return outcome, [*broken, f"the resumed run ended with {again.status}: {again.error}"]
        if content(self.path) != self.whole:
            broken.append("the resumed store differs from an uninterrupted one")
        if again.computed > self.units - len(outcome.acknowledged):
            broken.append(f"{again.computed} units computed again, {len(outcome.acknowledged)} were acknowledged")
        if leftovers(self.path):
            broken.append(f"temporary files after resuming: {leftovers(self.path)}")
        if (self.path / "quarantine").exists():
            broken.append("a shard was not what its name says")
        return outcome, broken

    def _after_fault(self, outcome: Outcome) -> list[str]:
        broken = []
        for name in outcome.acknowledged:
            file = self.path / "shards" / name
            if not file.is_file() or file.read_bytes() != self.whole[f"shards/{name}"]:
                broken.append(f"the acknowledged {name} is lost or wrong")
        if outcome.status not in (0, -9):
            if outcome.status != 74 or "StorageError" not in outcome.error or str(self.path) not in outcome.error:
                broken.append(f"ended with {outcome.status}: {outcome.error}")
            if leftovers(self.path):
                broken.append(f"temporary files after an error: {leftovers(self.path)}")
        return broken


def in_place_broken(path: Path, outcome: Outcome) -> str:
    """What is lost of the control's file: "" where it opens and holds every acknowledged row."""
    rows = FRAMES * PEOPLE
    try:
        with h5py.File(path, "r") as file:
            found = file["visual"][:]
    except (OSError, KeyError, RuntimeError) as error:
        return f"does not open: {error}" if outcome.acknowledged else ""
    for number in range(len(outcome.acknowledged)):
        if not np.array_equal(found[number * rows : (number + 1) * rows], shard_of(number).visual):
            return f"acknowledged unit {number} is lost or wrong"
    return ""
