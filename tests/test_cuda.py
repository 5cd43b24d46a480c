"""Features and training on a GPU equal those on the CPU up to rounding."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from extract.synth.dataset import draw_dataset
from store.reader import load_store
from tests.jobs import run_cli
from tests.oracles import PRECISION_ERROR

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

SMALL = ("--weights", "random", "--crop_size", "64")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_dataset(tmp_path_factory.mktemp("drawn") / "data", scenes=4, frames=3, people=8)


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 5e-3), *sorted(PRECISION_ERROR.items())])
def test_features_equal_the_cpus(data: Path, precision: str, tolerance: float) -> None:
    """On a GPU float32 convolutions may round to TensorFloat-32 (10 bits of mantissa)."""
    settings = ("--data_path", data, *SMALL, "--dtype", "float32")
    assert run_cli("extract", *settings, "--device", "cpu", "--store", "cpu.store") == 0
    assert run_cli("extract", *settings, "--device", "cuda", "--precision", precision, "--store", "gpu.store") == 0
    expected, actual = (load_store(Path(name)).visual for name in ("cpu.store", "gpu.store"))
    error = np.linalg.norm(actual - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert error.max() <= tolerance


def test_extraction_is_deterministic(data: Path) -> None:
    settings = ("--data_path", data, *SMALL, "--device", "cuda")
    for name in ("a.store", "b.store"):
        assert run_cli("extract", *settings, "--store", name) == 0
    first, second = (
        {file.name: file.read_bytes() for file in Path(name, "shards").iterdir()} for name in ("a.store", "b.store")
    )
    assert first == second


@pytest.mark.parametrize("mode", [("--freeze_backbone",), (), ("--amp",), ("--freeze_blocks", "2", "--checkpointing")])
def test_the_first_epochs_loss_equals_the_cpus(data: Path, mode: tuple[str, ...]) -> None:
    """The first epoch's losses on both devices differ by at most 5 %."""
    losses = {}
    for device in ("cpu", "cuda"):
        if device == "cpu" and "--amp" in mode:
            continue
        settings = ("--data_path", data, *SMALL, "--device", device, "--epochs", "1", "--dropout", "0", *mode)
        assert run_cli("train", *settings, "--checkpoint_dir", device) == 0
        record = json.loads(Path(device, "metrics.jsonl").read_text().splitlines()[-1])
        losses[device] = float(record["train_loss"])
    assert np.isfinite(losses["cuda"])
    if "cpu" in losses:
        assert losses["cuda"] == pytest.approx(losses["cpu"], rel=0.05)
