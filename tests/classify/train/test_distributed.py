"""Distributed training by torchrun: the losses of a single process, one writer, and restarts after a killed process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from classify.model.checkpoint import load_checkpoint
from cli import main
from configs.splits import SceneSplit
from tests.factories import read_history
from tests.jrdb_folder import write_folder

ROOT = Path(__file__).parents[3]
SPLIT = SceneSplit(train=("a",), val=("b",), test=("c",))
PLAIN = (sys.executable, str(ROOT / "cli.py"))
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--max-restarts", "1",
            "--monitor-interval", "0.1", "--standalone")  # fmt: skip
SLOW = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    write_folder(folder / "data", ("a", "b", "c"), frames=5, people=5, seed=3)
    lines = [f'{name} = ["{scenes[0]}"]' for name, scenes in vars(SPLIT).items()]
    (folder / "split.toml").write_text("\n".join(["[split]", *lines]))
    return folder


def command(run: str, epochs: int = 2, *more: str) -> list[str]:
    return ["finetune", "--data_path", "data", "--config", "split.toml", "--weights", "random", "--crop_size", "32",
            "--epochs", str(epochs), "--batch_size", "5", "--device", "cpu", "--num_workers", "1", "--lr", "1e-3",
            "--checkpoint_dir", run, *more]  # fmt: skip


@pytest.fixture(scope="module")
def two_processes(folder: Path) -> subprocess.CompletedProcess[str]:
    arguments = [*TORCHRUN, str(ROOT / "cli.py"), *command("two", 3)]
    return subprocess.run(arguments, check=False, cwd=folder, env=SLOW, capture_output=True, text=True, timeout=200)


def test_two_processes_train_to_the_losses_of_one(
    folder: Path, two_processes: subprocess.CompletedProcess[str]
) -> None:
    assert two_processes.returncode == 0, two_processes.stderr
    subprocess.run([*PLAIN, *command("one", 3)], cwd=folder, env=SLOW, check=True, capture_output=True, timeout=200)
    one, two = read_history(folder / "one"), read_history(folder / "two")
    assert len(one) == len(two) == 3
    for single, double in zip(one, two, strict=True):
        assert single["train_loss"] == pytest.approx(double["train_loss"], rel=1e-4)
        assert single["val_loss"] == pytest.approx(double["val_loss"], rel=1e-3)
    results = [json.loads((folder / run / "final_results.json").read_text()) for run in ("one", "two")]
    assert results[0]["test_pairs"] == results[1]["test_pairs"] > 0
    assert results[0]["baselines"]["knn"] == results[1]["baselines"]["knn"]
    states = [load_checkpoint(folder / run / "best_model.pth").model for run in ("one", "two")]
    for key, tensor in states[0].items():
        assert torch.allclose(tensor, states[1][key], rtol=1e-2, atol=1e-3), key


def test_only_rank_0_prints_and_writes(folder: Path, two_processes: subprocess.CompletedProcess[str]) -> None:
    assert two_processes.stdout.count("RESNET STAGE2 CONFIGURATION") == 1
    assert two_processes.stdout.count("Run folder: two") == 1
    log = (folder / "two" / "training.log").read_text()
    assert log.count("Val Epoch 1:") == log.count("Test, best model") == 1
    assert not [path for path in (folder / "two").iterdir() if "tmp" in path.name]


def test_after_a_killed_process_training_restarts_and_resumes(
    folder: Path, two_processes: subprocess.CompletedProcess[str]
) -> None:
    job = subprocess.Popen(
        [*TORCHRUN, str(ROOT / "cli.py"), *command("killed", 3)],
        cwd=folder,
        env=SLOW,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = folder / "killed" / "metrics.jsonl"
    while not metrics.exists():
        assert job.poll() is None
        time.sleep(0.02)
    os.kill(_rank_1(job.pid), signal.SIGKILL)
    out, err = job.communicate(timeout=200)
    assert job.returncode == 0, err
    assert read_history(folder / "killed") == read_history(folder / "two")
    assert out.count("RESNET STAGE2 CONFIGURATION") == 2


def _rank_1(parent: int) -> int:
    """The process id of rank 1, a child of torchrun."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for child in children:
        if b"RANK=1\0" in Path(f"/proc/{child}/environ").read_bytes().replace(b"LOCAL_RANK", b"").replace(
            b"GROUP_RANK", b""
        ):
            return int(child)
    raise AssertionError(f"no rank 1 among {children}")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--freeze_backbone",), "start it without torchrun"),
        (("--batchnorm", "train"), "--batchnorm frozen"),
        (("--checkpoint_dir", ""), "give --checkpoint_dir"),
    ],
)
def test_settings_that_need_one_process_are_refused(
    folder: Path,
    more: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with pytest.raises(SystemExit) as stop:
        main([*command("no", 1), *more])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (folder / "no").exists()
