"""The log lines of a run are those of the training guide."""

import logging
from typing import Any

import pytest
import torch

from classify.data.selection import Split
from classify.report.log import log_configuration, log_data
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
