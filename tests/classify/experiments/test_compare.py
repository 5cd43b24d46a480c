"""The comparison: the figures are the runs' own, the pairs the same, the memory that of one process."""

import json
import os
import signal
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import classify.evaluate.baselines
import classify.experiments.compare
import classify.experiments.isolated
import classify.train.run
from classify.experiments.compare import compare, compare_markdown, compare_table
from classify.experiments.isolated import train_in_child
from classify.pipeline import train
from configs.classes import PairClass
from configs.errors import ConfigError, DataError, MismatchError, SplitError, Stage2Error
from configs.resnet_stage2_config import ResNetStage2Config
from configs.train_options import TrainOptions
from extract.images.read import FrameError
from extract.synth.dataset import draw_dataset
from store.reader import load_store
from tests.jobs import SCENES, run_cli
from tests.jrdb_folder import write_folder

SMALL = {"weights": "random", "crop_size": 32, "epochs": 2, "device": "cpu", "num_workers": 0}


def train_here(config: ResNetStage2Config, options: TrainOptions) -> dict[str, Any]:
    """As `train_in_child`, without the seconds that a process of its own costs."""
    return train(config, options).results | {"peak_memory": 2**30, "memory": "process"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("jrdb"), SCENES, frames=3, people=7)


@pytest.fixture
def settings(data: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(classify.experiments.compare, "train_in_child", train_here)
    monkeypatch.setattr("classify.evaluate.baselines.ROUNDS", 1)
    monkeypatch.setattr("classify.train.run.plot_run", lambda *_: None)
    return SMALL | {"data_path": str(data)}


def test_figures_are_the_runs_own(tmp_path: Path, settings: dict[str, Any]) -> None:
    found = compare(tmp_path, ["hog", "resnet18"], ["cached", "end_to_end"], settings)
    assert json.loads((tmp_path / "compare.json").read_text()) == found
    lines = [(row["model"], row["mode"]) for row in found["rows"]]
    assert lines == [("hog", "cached"), ("resnet18", "cached"), ("resnet18", "end_to_end")]
    for row in found["rows"]:
        folder = Path(row["run"])
        results = json.loads((folder / "final_results.json").read_text())
        assert (row["test_accuracy"], row["test_mpca"]) == (results["test_accuracy"], results["test_mpca"])
        history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert row["val_mpca"] == max(record["val_mpca"] for record in history)
        assert row["seconds_train"] == results["seconds"]["train"] > 0
        assert results["mode"] == row["mode"]
        assert {split: sum(counts) for split, counts in found["pairs_per_class"].items()}["test"] == sum(
            map(sum, results["test_confusion_matrix"])
        )
        assert results["baselines"]["majority"] == found["baselines"]["majority"]
    for row in found["rows"][:2]:
        visual = load_store(tmp_path / f"{row['model']}.store").visual
        assert row["zero_share"] == pytest.approx(float((np.asarray(visual) == 0).mean()))
    assert found["rows"][2]["zero_share"] is None


def test_the_table_shows_them(tmp_path: Path, settings: dict[str, Any]) -> None:
    found = compare(tmp_path, ["hog"], ["cached", "end_to_end"], settings)
    page = (tmp_path / "compare.md").read_text()
    assert page == compare_markdown(found)
    assert compare_table(found) in page
    header, _, hog, majority, spatial = ([cell.strip() for cell in line.strip("|").split("|")] for line in table(found))
    values = dict(zip(header, hog, strict=True))
    row = found["rows"][0]
    assert values["model"] == "hog, frozen"
    assert values["MPCA"] == f"{row['val_mpca']:.4f}"
    assert values["test accuracy"] == f"{100 * row['test_accuracy']:.1f}%"
    assert values["zero values"] == f"{100 * row['zero_share']:.1f}%"
    assert values["memory"] == "1.00 GiB"
    assert [majority[0], spatial[0]] == ["majority", "spatial_only"]
    assert majority[3] == f"{100 * found['baselines']['majority']['accuracy']:.1f}%"


def table(found: dict[str, Any]) -> list[str]:
    return compare_table(found).splitlines()


def test_durations_and_a_resumed_extraction_are_readable(tmp_path: Path, settings: dict[str, Any]) -> None:
    found = compare(tmp_path, ["hog"], ["cached"], settings)
    row = found["rows"][0]
    shown = []
    for seconds in (3.21, 600.0, 9000.0):
        changed = row | {"seconds_extract": seconds, "extract_resumed": seconds == 600.0}
        shown.append(table(found | {"rows": [changed]})[2].split("|")[7].strip())
    assert shown == ["3.2 s", "≥ 10.0 min", "2.5 h"]


def test_each_run_follows_its_preset_and_options_win(tmp_path: Path, data: Path) -> None:
    given = {"data_path": str(data), "weights": "w.pth", "epochs": 7}
    plan = classify.experiments.compare._candidates(tmp_path, ["hog", "resnet50"], ["cached", "end_to_end"], given)
    hog, cached, whole = (candidate.config for candidate in plan)
    assert (hog.freeze_backbone, cached.freeze_backbone, whole.freeze_backbone) == (True, True, False)
    assert (cached.batch_size, cached.learning_rate) == (24, 1e-3)
    assert (whole.batch_size, whole.learning_rate, whole.visual_feature_dim) == (8, 5e-5, 512)
    assert {hog.epochs, cached.epochs, whole.epochs} == {7}
    assert (hog.weights, cached.weights, whole.weights) == ("imagenet", "w.pth", "w.pth")
    assert len({hog.checkpoint_dir, cached.checkpoint_dir, whole.checkpoint_dir}) == 3


@pytest.mark.parametrize(
    ("backbones", "modes", "words"),
    [
        (["resnet19"], ["cached"], "--backbones has 'resnet19'"),
        ([], ["cached"], "--backbones has ''"),
        (["hog"], ["frozen"], "--modes has 'frozen'"),
        (["hog"], ["end_to_end"], "nothing to train"),
    ],
)
def test_names_that_mean_nothing_are_refused(
    tmp_path: Path, settings: dict[str, Any], backbones: list[str], modes: list[str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        compare(tmp_path / "out", backbones, modes, settings)
    assert not (tmp_path / "out").exists()


def test_runs_on_other_pairs_are_refused(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fewer(config: ResNetStage2Config, options: TrainOptions) -> dict[str, Any]:
        results = train_here(config, options)
        if config.backbone_name == "resnet18":
            results["pairs_per_class"]["val"][1] -= 1
        return results

    monkeypatch.setattr(classify.experiments.compare, "train_in_child", fewer)
    with pytest.raises(MismatchError, match=r"resnet18_cached has .* in val.*hog_cached"):
        compare(tmp_path, ["hog", "resnet18"], ["cached"], settings)
    assert not (tmp_path / "compare.json").exists()


def test_run_again_it_takes_over_what_was_finished(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []

    def count(config: ResNetStage2Config, options: TrainOptions) -> dict[str, Any]:
        trained.append(Path(config.checkpoint_dir).name)
        if trained[-1] == "resnet18_cached" and len(trained) == 2:
            raise KeyboardInterrupt
        return train_here(config, options)

    monkeypatch.setattr(classify.experiments.compare, "train_in_child", count)
    with pytest.raises(KeyboardInterrupt):
        compare(tmp_path, ["hog", "resnet18"], ["cached"], settings)
    first = compare(tmp_path, ["hog", "resnet18"], ["cached"], settings)
    assert trained == ["hog_cached", "resnet18_cached", "resnet18_cached"]
    assert compare(tmp_path, ["hog", "resnet18"], ["cached"], settings) == first
    assert len(trained) == 3
    again = compare(tmp_path, ["hog"], ["cached"], settings | {"epochs": 1})
    assert trained[3:] == ["hog_cached"]
    assert again["rows"][0]["extract_resumed"]


def test_changed_data_is_not_taken_for_the_old(tmp_path: Path, settings: dict[str, Any]) -> None:
    data = write_folder(tmp_path / "data", SCENES, frames=2, people=6)
    settings = settings | {"data_path": str(data)}
    compare(tmp_path / "out", ["hog"], ["cached"], settings)
    write_folder(data, SCENES, frames=2, people=6, seed=1)
    with pytest.raises(MismatchError):  # the store under --out is of the old data, and says so
        compare(tmp_path / "out", ["hog"], ["cached"], settings)


def short(config: ResNetStage2Config, options: TrainOptions, sender: Connection) -> None:
    """What the child does, with less of the spatial baseline."""
    classify.evaluate.baselines.ROUNDS = 1
    classify.train.run.plot_run = lambda *_: None
    classify.experiments.isolated._child(config, options, sender)


def test_a_child_gives_the_same_results_and_its_own_memory(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = classify.experiments.compare._candidates(tmp_path, ["hog"], ["cached"], settings)[0].config
    here = train(replace(config, checkpoint_dir=str(tmp_path / "here")), TrainOptions(str(tmp_path / "a.store")))
    ballast = np.ones(2**26)  # 512 MiB of this process that are none of the child's
    monkeypatch.setattr(classify.experiments.isolated, "_child", short)
    found = train_in_child(config, TrainOptions(str(tmp_path / "b.store")))
    assert found["test_confusion_matrix"] == here.results["test_confusion_matrix"]
    assert found["best_val_mpca"] == here.results["best_val_mpca"]
    assert found["memory"] == "process"
    assert 2**27 < found["peak_memory"] < classify.experiments.isolated._peak_resident() - ballast.nbytes / 2


def test_a_childs_error_is_its_parents(tmp_path: Path, data: Path) -> None:
    config = classify.experiments.compare._candidates(tmp_path, ["hog"], ["cached"], SMALL | {"data_path": str(data)})[
        0
    ].config
    bare = replace(
        config, frame_interval=1000, classes=(PairClass("Waving", ("waving",)), PairClass("Sitting", ("x",)))
    )
    with pytest.raises(SplitError, match="no pair of a configured class"):
        train_in_child(bare, TrainOptions(str(tmp_path / "a.store")))
    assert classify.experiments.isolated._public(FrameError) == "DataError"


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data_path"):
        compare(tmp_path / "out", ["hog"], ["cached"], SMALL | {"data_path": "nowhere"})
    assert not (tmp_path / "out").exists()


def die(config: ResNetStage2Config, options: TrainOptions, sender: Connection) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_child_that_dies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classify.experiments.isolated, "_child", die)
    with pytest.raises(Stage2Error, match=r"run died with exit code -9.*--batch_size"):
        train_in_child(ResNetStage2Config(checkpoint_dir="run"), TrainOptions())


def test_command_prints_the_table_or_json(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_dataset(tmp_path / "drawn", scenes=3, frames=1, people=10, seed=1)
    Path("c.toml").write_text('dropout = 0.1\nepochs = 9\ncrop_size = 32\ndevice = "cpu"\n')
    options = ("--data-path", "drawn", "--backbones", "hog", "--modes", "cached", "--config", "c.toml", "--epochs", "1")
    assert run_cli("compare", *options, "--lr", "0.01", "--out", "out", "--json") == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert "Comparing hog_cached (1 of 1)" in captured.err
    config = json.loads(Path("out/hog_cached/config.json").read_text())
    assert (config["dropout"], config["epochs"], config["learning_rate"]) == (0.1, 1, 0.01)
    assert run_cli("compare", *options, "--lr", "0.01", "--out", "out") == 0
    assert capsys.readouterr().out.strip() == compare_table(found)
    assert run_cli("compare", *options, "--config", "missing.toml", "--out", "out") == 2
