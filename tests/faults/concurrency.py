"""Several processes use one store: two writers, or one writer and several readers.

`python -m tests.faults.concurrency STORE SECONDS` is one reader: it loads the store repeatedly, and prints how many
loads were right, refused and wrong.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import LockedError, StoreError
from store.reader import load_store
from store.writer import open_for_writing
from tests.faults.trial import ROOT
from tests.faults.workload import make_plan, shard_of


def read_during_writes(path: Path, readers: int, seconds: float) -> dict[str, Any]:
    """Builds a store, lets it grow and shrink by updates, and loads it in `readers` processes at the same time."""
    command = [sys.executable, "-m", "tests.faults.concurrency", str(path), str(seconds)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(readers)
    ]
    commits = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for units in (6, 9, 12, 4):
            with open_for_writing(path, make_plan(units), update=True, remove_missing=True) as writer:
                for number in writer.pending:
                    writer.commit(number, shard_of(number))
                    commits += 1
                writer.finish()
    counts = [[int(word) for word in process.communicate(timeout=60)[0].split()] for process in processes]
    right, refused, wrong = (sum(count[i] for count in counts) for i in range(3))
    return {"readers": readers, "commits": commits, "loads": right, "refused": refused, "wrong": wrong}


def count_loads(path: Path, seconds: float) -> tuple[int, int, int]:
    """Loads the store repeatedly; returns how many loads were right, refused and wrong."""
    right = refused = wrong = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            visual = load_store(path).visual
        except StoreError:  # unfinished, or changed during the load: reported, so not a wrong result
            refused += 1
            continue
        units = len(visual) // len(shard_of(0).visual)
        expected = np.concatenate([shard_of(number).visual for number in range(units)])
        correct = bool(units) and np.array_equal(visual, expected)
        right, wrong = right + correct, wrong + (not correct)
    return right, refused, wrong


def try_second_writer(path: Path, units: int) -> dict[str, int]:
    """Opens a second writer before each unit of the first one; counts how many attempts were refused."""
    refused = 0
    with open_for_writing(path, make_plan(units)) as writer:
        for number in writer.pending:
            try:
                with open_for_writing(path, make_plan(units)):
                    pass
            except LockedError:
                refused += 1
            writer.commit(number, shard_of(number))
        writer.finish()
    return {"attempts": units, "refused": refused}


if __name__ == "__main__":
    print(*count_loads(Path(sys.argv[1]), float(sys.argv[2])))
