"""A finished run has all its files, and its results agree with them."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from classify.inference.finished_run import evaluate_features
from classify.model.checkpoint import load_checkpoint
from classify.report.results import read_results, write_json
from classify.run_folder import RunFolder
from configs.errors import DataError, SplitError
from configs.process.console import console
from configs.resnet_stage2_config import ResNetStage2Config
from configs.splits import SceneSplit
from tests.factories import IDENTITY, make_features, make_tables, small_config, train_head

pytestmark = pytest.mark.usefixtures("quick_baselines")


def test_an_empty_split_creates_no_folder(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", split=SceneSplit(("a",), ("b",), ("nowhere",)))
    with pytest.raises(SplitError, match="test"):
        train_head(make_features(make_tables()), config)
    assert not (tmp_path / "run").exists()


def test_a_run_writes_all_its_files(tmp_path: Path) -> None:
    stream = io.StringIO()
    with console(stream):
        run = train_head(make_features(make_tables()), small_config(tmp_path / "run"))
    assert {path.name for path in run.folder.iterdir()} == {
        *(".stage2-run", "config.json", "training.log", "metrics.jsonl", "best_model.pth", "last.pth"),
        *("final_results.json", "confusion_matrix.png", "curves.png"),
    }
    folder = RunFolder(run.folder)
    assert folder.log.read_text() == stream.getvalue()
    assert "New best model saved! mpca: " in stream.getvalue()
    assert json.loads(folder.results.read_text()) == run.results == read_results(run.folder)
    config = json.loads(folder.config.read_text())
    assert ResNetStage2Config.from_dict(config) == small_config(tmp_path / "run")
    history = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    best = next(record for record in history if record["epoch"] == run.results["best_epoch"])
    assert best["val_accuracy"] == run.results["best_val_accuracy"]


def test_the_best_model_is_tested_and_not_the_last(tmp_path: Path) -> None:
    features = make_features(make_tables(), signal=0.8)
    run = train_head(features, small_config(tmp_path / "run", epochs=40, learning_rate=3e-2))
    assert run.results["best_epoch"] < run.results["epochs_run"]
    checkpoint = load_checkpoint(RunFolder(run.folder).best_model)
    assert checkpoint.epoch == run.results["best_epoch"]
    metrics = evaluate_features(checkpoint, features, IDENTITY, split="test", device=torch.device("cpu"))
    assert metrics["confusion_matrix"] == run.results["test_confusion_matrix"]
    assert metrics["loss"] == run.results["test_loss"]


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        RunFolder(tmp_path).results.write_text(content)
    with pytest.raises(DataError, match=str(tmp_path)):
        read_results(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_results_are_strict_json(tmp_path: Path, value: float) -> None:
    content: dict[str, Any] = {"value": value}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "r.json", content)
