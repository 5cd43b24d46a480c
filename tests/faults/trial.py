"""Runs the workload under a fault, and checks the guarantees of a store afterwards."""

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
WRITE, FSYNC, RENAME, CREATE, UNLINK, MKDIR, CHANGE = (1 << bit for bit in range(7))  # kinds of calls, as in inject.c
WRITING = WRITE | FSYNC | RENAME
ALL = 127
NONE, KILL_BEFORE, KILL_AFTER, TORN, ERROR, SHORT, FULL = range(7)  # kinds of faults, as in inject.c
ALWAYS = 10**9
KILLED, STORAGE_ERROR = -9, 74  # exit statuses


@dataclass(frozen=True)
class Fault:
    """`times` calls suffer the fault `kind`, from the `at`-th (from 1) of the kinds `calls` on.

    `code` is the errno of an error.
    """

    calls: int
    kind: int
    at: int
    code: int = 0
    times: int = 1

    def values(self) -> list[int]:
        """The arguments of the library's `fault_arm`."""
        return [self.calls, self.kind, self.code, self.at, self.times]


@dataclass
class Outcome:
    """The exit status of a run (negative: a signal's number), and what the child process logged."""

    status: int
    acknowledged: list[str] = field(default_factory=list)  # shard names
    computed: int = 0
    calls: int = 0
    error: str = ""


class ForkServer:
    """Starts a fork server with the library of faults preloaded, and sends it one job at a time."""

    def __init__(self, library: Path, module: str = "tests.faults.fork_server", **environment: str) -> None:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        environment = os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT)} | threads | environment
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, job: dict[str, Any], fault: Fault | None = None) -> dict[str, Any]:
        """Sends a job, with `fault` injected into the calls on files under its `root`; returns the answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(job | ({"fault": fault.values()} if fault else {})) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def run(self, path: Path, units: int, fault: Fault | None = None, work: str = "store", **more: Any) -> Outcome:
        """Fills `path` with `units` units, injecting `fault` into the calls on files under it."""
        answer = self.ask({"work": work, "path": str(path), "root": str(path), "units": units} | more, fault)
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


def read_content(path: Path) -> dict[str, bytes]:
    """The bytes of a store's files."""
    files = [path / "STORE.json", path / "skipped.jsonl", *(path / "shards").iterdir()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files if file.is_file()}


def temporary_files(path: Path) -> list[str]:
    """Temporary files in a store."""
    return [str(file) for file in path.rglob("*") if file.is_file() and file.name.endswith(".tmp")]


@dataclass
class Trial:
    """Fills a store under a fault, resumes it, and lists the guarantees that were broken."""

    server: ForkServer
    path: Path
    units: int
    expected: dict[str, bytes]  # content of an uninterrupted store

    def run(self, fault: Fault | None, **more: Any) -> tuple[Outcome, list[str]]:
        """Runs once with `fault` and once without; returns the first outcome and the broken guarantees."""
        shutil.rmtree(self.path, ignore_errors=True)
        outcome = self.server.run(self.path, self.units, fault, **more)
        broken = self._check_after_fault(outcome)
        resumed = self.server.run(self.path, self.units)
        if resumed.status != 0:
            return outcome, [*broken, f"the resumed run ended with {resumed.status}: {resumed.error}"]
        if read_content(self.path) != self.expected:
            broken.append("the resumed store differs from an uninterrupted one")
        if resumed.computed > self.units - len(outcome.acknowledged):
            broken.append(f"{resumed.computed} units computed again, {len(outcome.acknowledged)} were acknowledged")
        if temporary_files(self.path):
            broken.append(f"temporary files after resuming: {temporary_files(self.path)}")
        if (self.path / "quarantine").exists():
            broken.append("a shard did not match its name")
        return outcome, broken

    def _check_after_fault(self, outcome: Outcome) -> list[str]:
        """No acknowledged unit is lost; an error has its exit code, names the store and leaves no temporary files."""
        broken = []
        for name in outcome.acknowledged:
            file = self.path / "shards" / name
            if not file.is_file() or file.read_bytes() != self.expected[f"shards/{name}"]:
                broken.append(f"the acknowledged {name} is lost or wrong")
        if outcome.status not in (0, KILLED):
            named = "StorageError" in outcome.error and str(self.path) in outcome.error
            if outcome.status != STORAGE_ERROR or not named:
                broken.append(f"ended with {outcome.status}: {outcome.error}")
            if temporary_files(self.path):
                broken.append(f"temporary files after an error: {temporary_files(self.path)}")
        return broken


def check_in_place(path: Path, outcome: Outcome) -> str:
    """Describes what the control's file has lost; "" if it opens and contains every acknowledged row."""
    rows = FRAMES * PEOPLE
    try:
        with h5py.File(path, "r") as file:
            visual = file["visual"][:]
    except (OSError, KeyError, RuntimeError) as error:
        return f"does not open: {error}" if outcome.acknowledged else ""
    for number in range(len(outcome.acknowledged)):
        if not np.array_equal(visual[number * rows : (number + 1) * rows], shard_of(number).visual):
            return f"acknowledged unit {number} is lost or wrong"
    return ""
