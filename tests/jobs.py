"""Runs extraction jobs and command lines for tests."""

from pathlib import Path
from typing import Any

import pytest

import cli
from configs.extraction_config import ExtractionConfig
from configs.splits import JRDB_SPLIT
from extract.backbones.weights import LoadedBackbone
from extract.job import Summary, extract_with


def run(loaded: LoadedBackbone, data: Path, path: Path, **settings: Any) -> Summary:
    values = {"weights": "random", "crop_size": 32, "batch_size": 4, "num_workers": 0, "device": "cpu"} | settings
    return extract_with(ExtractionConfig(data_path=str(data), store=str(path), **values), loaded)


def content(path: Path) -> dict[str, bytes]:
    files = [path / "STORE.json", *(path / "shards").iterdir()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


class StoppedError(Exception):
    """Ends a job in the middle, as a kill would."""


JOB = """
import sys, torch
torch.set_num_threads(1)
import extract.units.plan
extract.units.plan.UNIT_CROPS = 8
from configs.extraction_config import ExtractionConfig
from extract.job import extract
config = ExtractionConfig(data_path=sys.argv[1], store=sys.argv[2], weights="random", crop_size=32, batch_size=4,
                          num_workers=2, device="cpu")
print("go", flush=True)
extract(config)
"""


def copy_of(data: Path, folder: Path) -> Path:
    for path in data.rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


SCENES = (JRDB_SPLIT.train[0], JRDB_SPLIT.train[1], JRDB_SPLIT.val[0], JRDB_SPLIT.test[0])
QUICK = ("--weights", "random", "--crop_size", "32", "--device", "cpu", "--num_workers", "0")


def run_cli(*arguments: str | Path) -> int:
    """The exit code of a command line, run in this process."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)
