"""Injects kills and I/O errors at every call; each function returns how often, and the guarantees that were broken."""

import errno
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tests.faults.trial import (
    ALL,
    ALWAYS,
    CREATE,
    ERROR,
    FSYNC,
    FULL,
    KILL_AFTER,
    KILL_BEFORE,
    KILLED,
    MKDIR,
    NONE,
    RENAME,
    SHORT,
    STORAGE_ERROR,
    TORN,
    UNLINK,
    WRITE,
    WRITING,
    Fault,
    ForkServer,
    Trial,
    check_in_place,
    read_content,
)

Counts = dict[str, Any]


def make_trial(server: ForkServer, folder: Path, units: int) -> Trial:
    """A trial of `units` units, with an uninterrupted store to compare with."""
    reference = folder / f"reference-{units}.store"
    shutil.rmtree(reference, ignore_errors=True)
    assert server.run(reference, units).status == 0
    return Trial(server, folder / "trial.store", units, read_content(reference))


def count_calls(trial: Trial, calls: int) -> int:
    """The number of calls of the kinds `calls` in an uninterrupted run."""
    shutil.rmtree(trial.path, ignore_errors=True)
    return trial.server.run(trial.path, trial.units, Fault(calls, NONE, 1)).calls


def _run_faults(trial: Trial, name: str, faults: Iterable[tuple[Fault | None, dict[str, Any]]]) -> Counts:
    counts: Counts = {"runs": 0, "killed": 0, "clean_errors": 0, "signals": 0, "acknowledged": 0, "broken": []}
    for fault, more in tqdm(list(faults), desc=name, disable=None):
        outcome, broken = trial.run(fault, **more)
        counts["runs"] += 1
        counts["killed"] += outcome.status == KILLED
        counts["clean_errors"] += outcome.status == STORAGE_ERROR
        counts["signals"] += outcome.status < 0 and outcome.status != KILLED
        counts["acknowledged"] += len(outcome.acknowledged)
        counts["broken"] += [f"{fault} {more}: {text}" for text in broken]
    return counts


def kill_at_every_call(trial: Trial, calls: int = WRITING, step: int = 1) -> Counts:
    """Kills the process before and after each write, fsync and rename, and in the middle of each write."""
    count = count_calls(trial, calls)
    writes = count_calls(trial, WRITE)
    faults = [Fault(calls, kind, at) for kind in (KILL_BEFORE, KILL_AFTER) for at in range(1, count + 1, step)]
    faults += [Fault(WRITE, TORN, at) for at in range(1, writes + 1, step)]
    return {"points": count, **_run_faults(trial, "kills at calls", ((fault, {}) for fault in faults))}


def kill_at_random(trial: Trial, count: int, longest: float, seed: int = 0) -> Counts:
    """Kills the process from outside, at random moments of the first `longest` seconds."""
    moments = np.random.default_rng(seed).uniform(0, longest, count)
    return _run_faults(trial, "random kills", ((None, {"kill_after": float(moment)}) for moment in moments))


def fail_at_every_call(trial: Trial, step: int = 1) -> Counts:
    """Fails every call that changes files with ENOSPC, EIO and EDQUOT, once or permanently.

    Also makes writes short, and fills the disk in the middle of a write.
    """
    faults = []
    for calls in (WRITE, FSYNC, RENAME, CREATE, MKDIR, UNLINK):
        points = range(1, count_calls(trial, calls) + 1, step)
        for code in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
            faults += [Fault(calls, ERROR, at, code, times) for times in (1, ALWAYS) for at in points]
    writes = range(1, count_calls(trial, WRITE) + 1, step)
    faults += [Fault(WRITE, SHORT, at, 0, times) for times in (1, ALWAYS) for at in writes]
    faults += [Fault(WRITE | CREATE, FULL, at, errno.ENOSPC, ALWAYS) for at in writes]
    return _run_faults(trial, "errors", ((fault, {}) for fault in faults))


def limit_file_size(trial: Trial, sizes: Iterable[int]) -> Counts:
    """Sets the kernel's limit on the size of a file, so that a shard or STORE.json does not fit."""
    return _run_faults(trial, "full disks", ((Fault(ALL, NONE, 1), {"largest_file": size}) for size in sizes))


def negative_control(server: ForkServer, folder: Path, units: int = 40) -> Counts:
    """Tears each write of in-place appends to one HDF5 file, which must lose units."""
    path = folder / "control" / "in_place.h5"
    options: dict[str, Any] = {"work": "in_place", "root": str(path.parent)}
    shutil.rmtree(path.parent, ignore_errors=True)
    count = server.run(path, units, Fault(WRITE, NONE, 1), **options).calls
    lost = []
    for at in range(1, count + 1):
        shutil.rmtree(path.parent, ignore_errors=True)
        broken = check_in_place(path, server.run(path, units, Fault(WRITE, TORN, at), **options))
        lost += [broken] if broken else []
    return {"runs": count, "broken": lost}
