"""A finished run leaves all its files, and its results agree with them."""

import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from classify.inference.finished_run import evaluate_features
from classify.model.checkpoint import load_checkpoint
from classify.report.log import console, run_log
from classify.report.plots import plot_run
from classify.report.results import write_json
from configs.errors import SplitError
from configs.resnet_stage2_config import ResNetStage2Config
from configs.splits import SceneSplit
from tests.factories import make_features, make_tables, small_config, train_head

log = logging.getLogger("stage2")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classify.evaluate.baselines.ROUNDS", 1)


def test_an_empty_split_leaves_no_folder(tmp_path: Path) -> None:
    config = small_config(tmp_path / "run", split=SceneSplit(("a",), ("b",), ("nowhere",)))
    with pytest.raises(SplitError, match="test"):
        train_head(make_features(make_tables()), config)
    assert not (tmp_path / "run").exists()


def test_a_run_leaves_all_its_files(tmp_path: Path) -> None:
    stream = io.StringIO()
    with console(stream):
        run = train_head(make_features(make_tables()), small_config(tmp_path / "run"))
    names = {path.name for path in run.folder.iterdir()}
    assert names == {
        *("config.json", "training.log", "metrics.jsonl", "best_model.pth", "last.pth"),
        *("final_results.json", "confusion_matrix.png", "curves.png"),
    }
    assert (run.folder / "training.log").read_text() == stream.getvalue()
    assert "New best model saved! mpca: " in stream.getvalue()
    assert json.loads((run.folder / "final_results.json").read_text()) == run.results
    config = json.loads((run.folder / "config.json").read_text())
    assert ResNetStage2Config.from_dict(config) == small_config(tmp_path / "run")
    best = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    chosen = next(entry for entry in best if entry["epoch"] == run.results["best_epoch"])
    assert chosen["val_accuracy"] == run.results["best_val_accuracy"]


def test_the_best_model_is_tested_and_not_the_last(tmp_path: Path) -> None:
    features = make_features(make_tables(), signal=0.8)
    run = train_head(features, small_config(tmp_path / "run", epochs=40, learning_rate=3e-2))
    assert run.results["best_epoch"] < run.results["epochs_run"]
    checkpoint = load_checkpoint(run.folder / "best_model.pth")
    assert checkpoint.epoch == run.results["best_epoch"]
    again = evaluate_features(checkpoint, features, {}, split="test", device=torch.device("cpu"))
    assert again["confusion_matrix"] == run.results["test_confusion_matrix"]
    assert again["loss"] == run.results["test_loss"]


def test_log_lines_are_bare_and_end_with_the_block(tmp_path: Path) -> None:
    stream = io.StringIO()
    with console(stream), run_log(tmp_path):
        log.info("%d people", 3)
    log.info("nobody hears this")
    assert stream.getvalue() == (tmp_path / "training.log").read_text() == "3 people\n"
    assert not log.handlers


def test_without_matplotlib_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("classify.report.plots.find_spec", lambda _: None)
    with caplog.at_level(logging.INFO, "stage2"):
        plot_run(tmp_path, {}, [])
    assert "stage2[plots]" in caplog.text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_results_are_strict_json(tmp_path: Path, value: float) -> None:
    content: dict[str, Any] = {"value": value}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "r.json", content)
