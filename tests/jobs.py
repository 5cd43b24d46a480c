"""Runs extraction jobs and command lines for tests."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

import cli
from configs.extraction_config import ExtractionConfig
from configs.splits import JRDB_SPLIT
from extract.backbones.weights import LoadedBackbone
from extract.job import ExtractionSummary, extract_with
from extract.repair import ComputeOptions, RepairSummary, repair
from extract.units.plan import UnitSize

SMALL_UNITS = UnitSize(crops=8)  # two or three units for a scene of `tests.jrdb_folder.write_folder`


def extract_store(
    loaded: LoadedBackbone, data: Path, path: Path, *, unit_size: UnitSize = SMALL_UNITS, **settings: Any
) -> ExtractionSummary:
    """Extracts `data` into the store `path` on the CPU; `settings` are fields of ExtractionConfig."""
    values = {"weights": "random", "crop_size": 32, "batch_size": 4, "num_workers": 0, "device": "cpu"} | settings
    return extract_with(ExtractionConfig(data_path=str(data), store=str(path), **values), loaded, unit_size=unit_size)


def repair_store(path: Path, data: Path, weights: str = "") -> RepairSummary:
    """Repairs a store that `extract_store` made from `data`."""
    options = ComputeOptions(batch_size=4, num_workers=0, device="cpu")
    return repair(path, data, weights, options, unit_size=SMALL_UNITS)


def store_files(path: Path) -> dict[str, bytes]:
    """Returns the content of STORE.json and of all shards: relative path -> bytes."""
    files = [path / "STORE.json", *(path / "shards").iterdir()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


class StoppedError(Exception):
    """Stops a job at a chosen point, in place of a kill."""


# a job for a subprocess that will be killed: python -c EXTRACTION_SCRIPT DATA STORE
EXTRACTION_SCRIPT = """
import sys, torch
torch.set_num_threads(1)
from configs.extraction_config import ExtractionConfig
from extract.backbones.weights import load_backbone
from extract.job import extract_with
from extract.repair import ComputeOptions, RepairSummary, repair
from extract.units.plan import UnitSize
config = ExtractionConfig(data_path=sys.argv[1], store=sys.argv[2], weights="random", crop_size=32, batch_size=4,
                          num_workers=2, device="cpu")
print("go", flush=True)
extract_with(config, load_backbone(config.backbone, config.weights), unit_size=UnitSize(crops=8))
"""


def copy_dataset(data: Path, folder: Path) -> Path:
    """Copies all files of `data` to `folder`, with new modification times; returns `folder`."""
    for path in data.rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


SCENES = (JRDB_SPLIT.train[0], JRDB_SPLIT.train[1], JRDB_SPLIT.val[0], JRDB_SPLIT.test[0])
QUICK = ("--weights", "random", "--crop_size", "32", "--device", "cpu", "--num_workers", "0")


def run_cli(*arguments: str | Path) -> int:
    """Runs a command line in this process and returns its exit code."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def fill_disk(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Makes writes fail once `size` bytes have been written; the last one writes a part."""
    write, left = os.write, size

    def limited(descriptor: int, data: memoryview) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, data[:left])
        left -= written
        return written

    monkeypatch.setattr(os, "write", limited)
