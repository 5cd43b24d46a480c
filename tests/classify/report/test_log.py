"""The log lines are those of the training guide, and go to a stream and to training.log within the block."""

import errno
import io
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from classify.data.selection import Split
from classify.report.log import log_configuration, log_data, run_log
from configs.process.console import console
from configs.resnet_stage2_config import ResNetStage2Config


def test_the_configuration_block_is_that_of_the_guide(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "stage2"):
        log_configuration(ResNetStage2Config())
    assert [entry.getMessage() for entry in caplog.records] == [
        "==============================================================",
        "RESNET STAGE2 CONFIGURATION",
        "==============================================================",
        "Model Architecture:",
        "  Type: resnet_relation",
        "  Backbone: resnet18",
        "  Visual features: 256D",
        "  Spatial features: 8D",
        "  Fusion strategy: concat",
        "",
        "Training:",
        "  Epochs: 50",
        "  Batch size: 16",
        "  Learning rate: 0.0001",
        "  Optimizer: adam",
        "",
    ]


def test_the_data_block_is_that_of_the_guide(caplog: pytest.LogCaptureFixture) -> None:
    class Counts:
        def __init__(self, samples: int, batches: int):
            self.samples, self.batches = samples, batches

    sources: Any = {"train": Counts(1234, 78), "val": Counts(456, 29), "test": Counts(234, 15)}
    splits = {name: Split(name, *(torch.tensor([0, 0, 2]).numpy(),) * 2) for name in sources}
    with caplog.at_level(logging.INFO, "stage2"):
        log_data(splits, sources, ResNetStage2Config())
    lines = [entry.getMessage() for entry in caplog.records]
    assert lines[:4] == [
        "✅ ResNet Stage2 data loaders created:",
        "   Train: 1,234 samples, 78 batches",
        "   Val:   456 samples, 29 batches",
        "   Test:  234 samples, 15 batches",
    ]
    assert "train 2, val 2, test 2" in lines[4]


def test_log_lines_have_no_prefix_and_end_with_the_block(tmp_path: Path) -> None:
    log, stream = logging.getLogger("stage2"), io.StringIO()
    with console(stream), run_log(tmp_path):
        log.info("%d people", 3)
    log.info("not logged")
    assert stream.getvalue() == (tmp_path / "training.log").read_text() == "3 people\n"
    assert not log.handlers


def test_p1_a_log_that_cannot_be_written_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    log, stream = logging.getLogger("stage2"), io.StringIO()
    with console(stream), run_log(tmp_path):
        handler = log.handlers[-1]
        assert isinstance(handler, logging.StreamHandler)
        full, handler.stream = handler.stream, Full()
        log.info("lost")
        handler.stream = full
        log.info("kept")
        handler.stream = Full()
    full.close()
    assert (tmp_path / "training.log").read_text() == "kept\n"
    assert stream.getvalue() == "lost\nkept\n"
    assert capsys.readouterr() == ("", "")


def test_p1_a_log_that_cannot_be_opened_changes_nothing(tmp_path: Path) -> None:
    stream = io.StringIO()
    with console(stream), run_log(tmp_path / "missing"):
        logging.getLogger("stage2").info("kept")
    assert "training.log cannot be written" in stream.getvalue() and "kept" in stream.getvalue()
