"""Flips bits and cuts the end off files of every kind that is read again later; each change must be detected."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import Stage2Error
from store.open import read_manifest
from store.pack import pack_store
from store.reader import load_store
from store.writer import open_for_writing
from tests.faults.workload import make_plan, shard_of

UNITS = 3


class HarmlessError(Exception):
    """Raised by a reader if the damage is in bytes that nothing reads: the loaded values equal the written ones."""


def make_store(path: Path) -> Path:
    """Writes a small finished store."""
    with open_for_writing(path, make_plan(UNITS)) as writer:
        for number in writer.pending:
            writer.commit(number, shard_of(number))
        writer.finish()
    return path


def damage_file(path: Path, read: Callable[[], Any], count: int, seed: int = 0) -> dict[str, Any]:
    """Makes `count` bit flips and `count` cuts in a file, one at a time; lists those that `read` does not refuse."""
    data = path.read_bytes()
    rng = np.random.default_rng(seed)
    missed = []
    harmless = 0
    for at in rng.integers(0, len(data), count).tolist():
        bit = int(rng.integers(8))
        flipped = bytearray(data)
        flipped[at] ^= 1 << bit
        for name, content in ((f"bit {bit} of byte {at}", bytes(flipped)), (f"cut to {at} bytes", data[:at])):
            path.write_bytes(content)
            try:
                read()
                missed.append(name)
            except HarmlessError:
                harmless += 1
            except Stage2Error:
                pass  # detected
    path.write_bytes(data)
    return {"flips": count, "cuts": count, "harmless": harmless, "missed": missed}


def damage_stores(folder: Path, count: int) -> dict[str, dict[str, Any]]:
    """Damages a shard, a manifest and a packed store."""
    store = make_store(folder / "damaged.store")
    packed = folder / "damaged.h5"
    pack_store(store, packed)
    shard = store / "shards" / read_manifest(store).units[1].shard
    return {
        "shard": damage_file(shard, lambda: load_store(store), count),
        "manifest": damage_file(store / "STORE.json", lambda: load_store(store), count),
        "packed": damage_file(packed, lambda: load_store(packed), count),
    }


def damage_checkpoint(folder: Path, count: int) -> dict[str, dict[str, Any]]:
    """Damages a run's best model; damage that changes no loaded value is harmless."""
    import torch
    from torch import nn

    from classify.model.checkpoint import CACHED, RunInfo, load_checkpoint, save_checkpoint
    from classify.model.head import Stage2Model, build_head
    from tests.factories import small_config

    path = folder / "best_model.pth"
    info = RunInfo(CACHED, small_config(), 16, {"name": "tiny"}, "f", (0.5, 1.0, 1.5))
    save_checkpoint(path, info, Stage2Model(nn.Identity(), build_head(small_config(), 16)), {"epoch": 1})
    intact = load_checkpoint(path)

    def read() -> None:
        loaded = load_checkpoint(path)
        same = loaded.info == intact.info and loaded.metrics == intact.metrics
        if same and all(torch.equal(loaded.model[key], intact.model[key]) for key in intact.model):
            raise HarmlessError

    return {"checkpoint": damage_file(path, read, count)}
