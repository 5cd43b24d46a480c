"""Readers in processes of their own while a writer works: they get the right rows, or are told that there are none."""

import sys
import time
from pathlib import Path

import numpy as np

from configs.errors import StoreError
from store.reader import load_store
from tests.faults.workload import shard_of


def read_until(path: Path, seconds: float) -> dict[str, int]:
    """Loads the store over and over; how often it was right, refused, or wrong."""
    counts = {"right": 0, "refused": 0, "wrong": 0}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            visual = load_store(path).visual
        except StoreError:  # unfinished, or changed while it was read: said, never guessed
            counts["refused"] += 1
            continue
        units = len(visual) // len(shard_of(0).visual)
        expected = np.concatenate([shard_of(number).visual for number in range(units)])
        counts["right" if np.array_equal(visual, expected) and units else "wrong"] += 1
    return counts


if __name__ == "__main__":
    found = read_until(Path(sys.argv[1]), float(sys.argv[2]))
    print(found["right"], found["refused"], found["wrong"])
