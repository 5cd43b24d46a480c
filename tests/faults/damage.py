"""Flipped bits and cut ends in every kind of file that is trusted later: each one must be noticed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import Stage2Error
from store.format.manifest import read_manifest
from store.pack import pack_store
from store.reader import load_store
from store.writer import open_for_writing
from tests.faults.workload import make_plan, shard_of

UNITS = 3


class HarmlessError(Exception):
    """The damage fell on bytes that nothing reads: what was loaded is what was written."""


def make_store(path: Path) -> Path:
    """A small finished store."""
    with open_for_writing(path, make_plan(UNITS)) as writer:
        for number in writer.pending:
            writer.commit(number, shard_of(number))
        writer.finish()
    return path


def damaged(path: Path, read: Callable[[], Any], count: int, seed: int = 0) -> dict[str, Any]:
    """`count` flipped bits and as many cuts of file `path`, one at a time; how many `read` did not refuse."""
    data = path.read_bytes()
    rng = np.random.default_rng(seed)
    missed = []
    harmless = 0
    for at in rng.integers(0, len(data), count).tolist():
        bit = int(rng.integers(8))
        flipped = bytearray(data)
        flipped[at] ^= 1 << bit
        for what, content in ((f"bit {bit} of byte {at}", bytes(flipped)), (f"cut to {at} bytes", data[:at])):
            path.write_bytes(content)
            try:
                read()
                missed.append(what)
            except HarmlessError:
                harmless += 1
            except Stage2Error:
                pass  # found
    path.write_bytes(data)
    return {"flips": count, "cuts": count, "harmless": harmless, "missed": missed}


def damaged_stores(folder: Path, count: int) -> dict[str, dict[str, Any]]:
    """A shard, the manifest, and a packed store."""
    store = make_store(folder / "damaged.store")
    packed = folder / "damaged.h5"
    pack_store(store, packed)
    shard = store / "shards" / read_manifest(store).units[1].shard
    return {
        "shard": damaged(shard, lambda: load_store(store), count),
        "manifest": damaged(store / "STORE.json", lambda: load_store(store), count),
        "packed": damaged(packed, lambda: load_store(packed), count),
    }


def damaged_checkpoint(folder: Path, count: int) -> dict[str, dict[str, Any]]:
    """A run's best model: every flip is refused, or fell on a byte that nothing reads and changed no tensor."""
    import torch
    from torch import nn

    from classify.model.checkpoint import CACHED, RunInfo, load_checkpoint, save_checkpoint
    from classify.model.head import Stage2Model, build_head
    from tests.factories import small_config

    path = folder / "best_model.pth"
    about = RunInfo(CACHED, small_config(), 16, {"name": "tiny"}, "f", (0.5, 1.0, 1.5))
    save_checkpoint(path, about, Stage2Model(nn.Identity(), build_head(small_config(), 16)), {"epoch": 1})
    intact = load_checkpoint(path)

    def read() -> None:
        found = load_checkpoint(path)
        same = found.info == intact.info and found.metrics == intact.metrics
        if same and all(torch.equal(found.model[key], intact.model[key]) for key in intact.model):
            raise HarmlessError

    return {"checkpoint": damaged(path, read, count)}
