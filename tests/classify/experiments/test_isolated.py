"""Training in a child process: same results, its own peak memory, and its errors raised in the parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

import classify.evaluate.baselines
import classify.experiments.isolated
import classify.train.run
from classify.experiments.isolated import error_class_name, peak_resident_bytes, train_and_send, train_in_subprocess
from classify.pipeline import train
from configs.classes import PairClass
from configs.errors import SplitError, Stage2Error
from configs.resnet_stage2_config import ResNetStage2Config
from configs.train_options import TrainOptions
from extract.images.read import FrameError
from tests.jobs import SCENES
from tests.jrdb_folder import write_folder

pytestmark = pytest.mark.usefixtures("quick_baselines", "no_plots")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ResNetStage2Config:
    folder = tmp_path_factory.mktemp("isolated")
    return ResNetStage2Config(
        backbone_name="hog",
        freeze_backbone=True,
        crop_size=32,
        epochs=2,
        device="cpu",
        num_workers=0,
        data_path=str(write_folder(folder / "data", SCENES, frames=3, people=7)),
        checkpoint_dir=str(folder / "child"),
    )


def train_quickly(config: ResNetStage2Config, options: TrainOptions, sender: Connection) -> None:
    """Like `train_and_send`, with quick baselines and without plots also in the child process."""
    classify.evaluate.baselines.ROUNDS = 1
    classify.train.run.plot_run = lambda *_: None  # type: ignore[assignment]
    train_and_send(config, options, sender)


def test_a_child_has_the_same_results_and_its_own_memory(tmp_path: Path, config: ResNetStage2Config) -> None:
    here = train(replace(config, checkpoint_dir=str(tmp_path / "here")), TrainOptions(str(tmp_path / "a.store")))
    ballast = np.ones(2**26)  # 512 MiB of this process that must not count for the child
    results = train_in_subprocess(config, TrainOptions(str(tmp_path / "b.store")), train_quickly)
    assert results["test_confusion_matrix"] == here.results["test_confusion_matrix"]
    assert results["best_val_mpca"] == here.results["best_val_mpca"]
    assert results["memory"] == "process"
    assert 2**27 < results["peak_memory"] < peak_resident_bytes() - ballast.nbytes / 2


def test_an_error_of_the_child_is_raised_in_the_parent(tmp_path: Path, config: ResNetStage2Config) -> None:
    classes = (PairClass("Waving", ("waving",)), PairClass("Sitting", ("x",)))
    without_pairs = replace(config, frame_interval=1000, classes=classes, checkpoint_dir=str(tmp_path / "run"))
    with pytest.raises(SplitError, match="no pair in the data has the label"):
        train_in_subprocess(without_pairs, TrainOptions(str(tmp_path / "a.store")))
    assert error_class_name(FrameError) == "DataError"


def kill_itself(config: ResNetStage2Config, options: TrainOptions, sender: Connection) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_child_that_dies_is_named() -> None:
    with pytest.raises(Stage2Error, match=r"run died with exit code -9.*--batch_size"):
        train_in_subprocess(ResNetStage2Config(checkpoint_dir="run"), TrainOptions(), kill_itself)


def sleep_instead(config: ResNetStage2Config, options: TrainOptions, sender: Connection) -> None:
    """`train_and_send` with a training that writes its process id and never ends."""

    def sleep(config: ResNetStage2Config, options: TrainOptions) -> None:
        Path(config.checkpoint_dir).write_text(str(os.getpid()))
        time.sleep(600)

    classify.experiments.isolated.train = sleep  # type: ignore[assignment]
    train_and_send(config, options, sender)


PARENT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job inherits SIG_IGN
import sys
from classify.experiments.isolated import train_in_subprocess
from configs.process.failures import sigterm_interrupts
from configs.resnet_stage2_config import ResNetStage2Config
from configs.train_options import TrainOptions
from tests.classify.experiments.test_isolated import sleep_instead
if __name__ == "__main__":
    with sigterm_interrupts():
        train_in_subprocess(ResNetStage2Config(checkpoint_dir=sys.argv[1]), TrainOptions(), sleep_instead)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_p4_the_child_ends_with_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    script, started = tmp_path / "parent.py", tmp_path / "started"
    script.write_text(PARENT)
    root = Path(__file__).parents[3]
    environment = {name: value for name, value in os.environ.items() if name != "WORLD_SIZE"}
    parent = subprocess.Popen(
        [sys.executable, str(script), str(started)],
        env=environment | {"PYTHONPATH": str(root)},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: started.exists() and started.read_text() != "", 60)
        child = int(started.read_text())
        parent.send_signal(number)
        parent.wait(30)
        wait_until(lambda: not is_running(child), 30)
    finally:
        parent.kill()
        parent.wait()


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
