"""Kills and I/O errors at every call; each function returns figures: how often, and what was broken."""

import errno
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tests.faults.harness import (
    ALL,
    ALWAYS,
    CREATE,
    ERROR,
    FSYNC,
    FULL,
    KILL_AFTER,
    KILL_BEFORE,
    MKDIR,
    NONE,
    RENAME,
    SHORT,
    TORN,
    UNLINK,
    WRITE,
    WRITING,
    Fault,
    Trial,
    Zygote,
    content,
    in_place_broken,
)

Figures = dict[str, Any]


def make_trial(zygote: Zygote, folder: Path, units: int) -> Trial:
    """A trial of so many units, with the uninterrupted store to compare with."""
    whole = folder / f"whole-{units}.store"
    shutil.rmtree(whole, ignore_errors=True)
    assert zygote.run(whole, units).status == 0
    return Trial(zygote, folder / "trial.store", units, content(whole))


def calls_of(trial: Trial, calls: int) -> int:
    """How many such calls an uninterrupted run makes."""
    shutil.rmtree(trial.path, ignore_errors=True)
    return trial.zygote.run(trial.path, trial.units, Fault(calls, NONE, 1)).calls


def _campaign(trial: Trial, name: str, faults: Iterable[tuple[Fault | None, dict[str, Any]]]) -> Figures:
    figures: Figures = {"runs": 0, "killed": 0, "clean_errors": 0, "signals": 0, "acknowledged": 0, "broken": []}
    for fault, more in tqdm(list(faults), desc=name, disable=None):
        outcome, broken = trial.run(fault, **more)
        figures["runs"] += 1
        figures["killed"] += outcome.status == -9
        figures["clean_errors"] += outcome.status == 74
        figures["signals"] += outcome.status < 0 and outcome.status != -9
        figures["acknowledged"] += len(outcome.acknowledged)
        figures["broken"] += [f"{fault} {more}: {text}" for text in broken]
    return figures


def kills_at_every_call(trial: Trial, calls: int = WRITING, step: int = 1) -> Figures:
    """kill -9 before and after each write, fsync and rename, and in the middle of each write."""
    count = calls_of(trial, calls)
    writes = calls_of(trial, WRITE)
    faults = [Fault(calls, kind, at) for kind in (KILL_BEFORE, KILL_AFTER) for at in range(1, count + 1, step)]
    faults += [Fault(WRITE, TORN, at) for at in range(1, writes + 1, step)]
    return {"points": count, **_campaign(trial, "kills at calls", ((fault, {}) for fault in faults))}


def random_kills(trial: Trial, count: int, longest: float, seed: int = 0) -> Figures:
    """kill -9 from outside at random moments of the first `longest` seconds."""
    moments = np.random.default_rng(seed).uniform(0, longest, count)
    return _campaign(trial, "random kills", ((None, {"kill_after": float(moment)}) for moment in moments))


def errors_at_every_call(trial: Trial, step: int = 1) -> Figures:
    """ENOSPC, EIO and EDQUOT, once or from then on, at every changing call; short writes; a disk that fills up."""
    faults = []
    for calls in (WRITE, FSYNC, RENAME, CREATE, MKDIR, UNLINK):
        points = range(1, calls_of(trial, calls) + 1, step)
        for code in (errno.ENOSPC, errno.EIO, errno.EDQUOT):
            faults += [Fault(calls, ERROR, at, code, times) for times in (1, ALWAYS) for at in points]
    writes = range(1, calls_of(trial, WRITE) + 1, step)
    faults += [Fault(WRITE, SHORT, at, 0, times) for times in (1, ALWAYS) for at in writes]
    faults += [Fault(WRITE | CREATE, FULL, at, errno.ENOSPC, ALWAYS) for at in writes]
    return _campaign(trial, "errors", ((fault, {}) for fault in faults))


def full_disks(trial: Trial, sizes: Iterable[int]) -> Figures:
    """The kernel's own limit of a file's size, so that a shard, or STORE.json, does not fit."""
    return _campaign(trial, "full disks", ((Fault(ALL, NONE, 1), {"largest_file": size}) for size in sizes))


def negative_control(zygote: Zygote, folder: Path, units: int = 40) -> Figures:
    """One HDF5 file appended to in place with a flush after each unit, under torn writes: it must lose units."""
    path = folder / "control" / "in_place.h5"
    options: dict[str, Any] = {"work": "in_place", "root": str(path.parent)}
    shutil.rmtree(path.parent, ignore_errors=True)
    count = zygote.run(path, units, Fault(WRITE, NONE, 1), **options).calls
    lost = []
    for at in range(1, count + 1):
        shutil.rmtree(path.parent, ignore_errors=True)
        broken = in_place_broken(path, zygote.run(path, units, Fault(WRITE, TORN, at), **options))
        lost += [broken] if broken else []
    return {"runs": count, "broken": lost}
