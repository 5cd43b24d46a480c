"""The training loop: schedule, best epoch, early stopping, resuming, and the log lines of the guide."""

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import classify.train.loop
from classify.data.cached import CachedFeatures, CachedSource
from classify.data.selection import select_splits
from classify.evaluate.history import best_record, epochs_without_improvement
from classify.model.checkpoint import CACHED, RunInfo, load_checkpoint
from classify.model.head import Stage2Model, build_head
from classify.model.losses import Objective
from classify.run_folder import RunFolder
from classify.train.head_step import HeadState, HeadStep
from classify.train.learning_rate import warmup_cosine
from classify.train.loop import TrainingRun, fit
from classify.train.loop import resume as continue_run
from configs.errors import CheckpointError, Stage2Error
from tests.factories import make_features, make_tables, read_history, small_config


def record(epoch: int, mpca: float, loss: float = 1.0) -> dict[str, Any]:
    return {"epoch": epoch, "val_mpca": mpca, "val_loss": loss}


def train(folder: Path, *, resume: bool = False, signal: float = 3.0, **settings: Any) -> list[dict[str, Any]]:
    """Runs the loop on random features and returns the history."""
    folder.mkdir(exist_ok=True)
    config = small_config(**settings)
    features = make_features(make_tables(), signal=signal)
    splits = select_splits(features.tables, config)
    visual = CachedFeatures.load(features, torch.device("cpu"))
    sources = [CachedSource(features.tables, visual, splits[name], config.batch_size) for name in ("train", "val")]
    info = RunInfo(CACHED, config, 16, {}, "", (1.0, 1.0, 1.0))
    torch.manual_seed(config.seed)
    model = Stage2Model(nn.Identity(), build_head(config, 16))
    objective = Objective.from_config(config, info.class_weight, torch.device("cpu"))
    state = HeadState(model.head, config)
    run = TrainingRun(model, state, info, RunFolder(folder))
    if resume:
        continue_run(run, load_checkpoint(run.folder.last, resume=True))
    fit([run], *sources, objective, lambda _: HeadStep([state], objective))
    return run.history


def test_the_schedule_is_a_linear_warmup_and_half_a_cosine() -> None:
    rates = [warmup_cosine(step, 0.1, 10, 110) for step in range(110)]
    assert rates[:10] == pytest.approx([0.01 * (step + 1) for step in range(10)])
    assert rates[10:] == pytest.approx([0.05 * (1 + math.cos(math.pi * step / 100)) for step in range(100)])
    assert min(rates) > 0
    assert max(rates) == 0.1


@pytest.mark.parametrize(("warmup", "total"), [(0, 1), (1, 1), (5, 3)])
def test_the_shortest_schedules_work(warmup: int, total: int) -> None:
    assert all(0 < warmup_cosine(step, 1.0, warmup, total) <= 1 for step in range(total))


def test_the_rate_changes_at_each_step(tmp_path: Path) -> None:
    history = train(tmp_path / "r", epochs=4, warmup_epochs=2.0, learning_rate=1e-3)
    batches = math.ceil(100 / 8)
    expected = [warmup_cosine(epoch * batches - 1, 1e-3, 2 * batches, 4 * batches) for epoch in range(1, 5)]
    assert [entry["learning_rate"] for entry in history] == pytest.approx(expected)


def test_the_best_epoch_has_the_highest_mpca_then_the_lowest_loss_then_comes_first() -> None:
    history = [record(1, 0.5), record(2, 0.6, 0.9), record(3, 0.6, 0.8), record(4, 0.6, 0.8), record(5, 0.4, 0.1)]
    assert best_record(history)["epoch"] == 3
    assert epochs_without_improvement(history) == 3  # the MPCA last rose at epoch 2


def test_patience_counts_epochs_without_a_higher_mpca(tmp_path: Path) -> None:
    history = train(tmp_path / "r", epochs=60, patience=4, learning_rate=1e-9)
    highest = max(entry["val_mpca"] for entry in history)
    first = next(entry["epoch"] for entry in history if entry["val_mpca"] == highest)
    assert history[-1]["epoch"] == first + 4 < 60


def test_gradients_are_clipped(tmp_path: Path) -> None:
    tight, loose = (train(tmp_path / name, grad_clip=norm) for name, norm in (("tight", 1e-6), ("loose", 1e9)))
    assert tight[-1]["train_loss"] > loose[-1]["train_loss"]  # so small that Adam's epsilon slows it down


def test_a_loss_that_is_not_finite_ends_the_run_before_it_is_saved(tmp_path: Path) -> None:
    with pytest.raises(Stage2Error, match="--lr"):
        train(tmp_path / "r", signal=float("nan"))
    assert list((tmp_path / "r").iterdir()) == []


@pytest.mark.parametrize("change", [{"learning_rate": 1e-2}, {"balance": "none"}, {"fusion_strategy": "add"}])
def test_resuming_with_other_settings_is_refused_by_name(tmp_path: Path, change: dict[str, Any]) -> None:
    train(tmp_path / "r", epochs=1)
    with pytest.raises(CheckpointError, match=next(iter(change))):
        train(tmp_path / "r", resume=True, **({"epochs": 1} | change))


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    assert train(tmp_path / "r") == train(tmp_path / "r", resume=True)


def test_r15_metrics_that_were_not_written_before_a_kill_are_written_on_resuming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = classify.train.loop.write_history

    def stop(path: Path, history: list[dict[str, Any]]) -> None:
        if len(history) == 2:
            raise KeyboardInterrupt  # after last.pth, before metrics.jsonl
        write(path, history)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(classify.train.loop, "write_history", stop)
        train(tmp_path / "r", epochs=3)
    assert [entry["epoch"] for entry in read_history(tmp_path / "r")] == [1]
    history = train(tmp_path / "r", epochs=3, resume=True)
    assert read_history(tmp_path / "r") == history == train(tmp_path / "whole", epochs=3)


def test_the_lines_of_an_epoch_are_those_of_the_guide(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "stage2"):
        (history,) = train(tmp_path / "r", epochs=1, batch_size=16, log_interval=4)
    lines = [entry.getMessage() for entry in caplog.records]
    heads = [line.partition("] ")[0] + "]" for line in lines[:2]]
    assert heads == ["Train Epoch: 1 [    0/100 (  0%)]", "Train Epoch: 1 [   64/100 ( 64%)]"]
    assert all(len(line.partition("Loss: ")[2].partition(".")[2]) == 6 for line in lines[:2])
    figures = (history["val_loss"], history["val_accuracy"], history["val_mpca"])
    assert lines[2] == "Val Epoch 1: Avg Loss: {:.6f}, Acc: {:.4f}, MPCA: {:.4f}".format(*figures)
    assert lines[3] == f"New best model saved! mpca: {history['val_mpca']:.4f}"


def test_trained_parameters_have_gradients_and_frozen_ones_have_none() -> None:
    from classify.data.batches import PairBatch
    from tests.factories import TinyBackbone

    for frozen in (False, True):
        model = Stage2Model(TinyBackbone(freeze=frozen), build_head(small_config(), 8)).train()
        crops = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
        rows = torch.arange(3)
        logits = model(PairBatch(crops, rows, rows + 3, torch.rand(3, 8), rows))
        Objective(torch.ones(3), 0.1, 0.05).loss(logits, rows).backward()
        assert all((parameter.grad is None) == frozen for parameter in model.backbone.parameters())
        assert all(parameter.grad is not None for parameter in model.head.parameters())
        assert len(model.trainable_parameters()) == sum(1 for _ in (model.head if frozen else model).parameters())
