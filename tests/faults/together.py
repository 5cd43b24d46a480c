"""Several processes at one store: two writers, or a writer and many readers."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from configs.errors import LockedError
from store.writer import open_for_writing
from tests.faults.harness import ROOT
from tests.faults.workload import make_plan, shard_of


def readers_while_a_writer_works(path: Path, readers: int, seconds: float) -> dict[str, Any]:
    """A store that is built and then grows and shrinks by updates, and so many processes that load it meanwhile."""
    command = [sys.executable, "-m", "tests.faults.readers", str(path), str(seconds)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(readers)
    ]
    commits = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for units in (6, 9, 12, 4):
            with open_for_writing(path, make_plan(units), update=True) as writer:
                for number in writer.pending:
                    writer.commit(number, shard_of(number))
                    commits += 1
                writer.finish()
    answers = [[int(word) for word in process.communicate(timeout=60)[0].split()] for process in processes]
    right, refused, wrong = (sum(answer[i] for answer in answers) for i in range(3))
    return {"readers": readers, "commits": commits, "loads": right, "refused": refused, "wrong": wrong}


def two_writers(path: Path, units: int) -> dict[str, int]:
    """A second writer at every unit of the first: always refused, nothing changed."""
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
