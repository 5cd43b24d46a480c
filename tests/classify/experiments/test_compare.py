"""The comparison of backbones: metrics of the runs, the same pairs for all, and reuse of finished runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classify.experiments.compare import compare, compare_markdown, compare_table, plan_runs
from classify.experiments.finished_row import load_finished
from classify.pipeline import train
from classify.run_folder import RunFolder
from configs.errors import ConfigError, DataError, MismatchError
from configs.resnet_stage2_config import ResNetStage2Config
from configs.train_options import TrainOptions
from extract.synth.dataset import draw_dataset
from store.reader import load_store, store_info
from tests.jobs import SCENES, run_cli
from tests.jrdb_folder import read_labels, write_folder, write_labels

SMALL = {"weights": "random", "crop_size": 32, "epochs": 2, "device": "cpu", "num_workers": 0}

pytestmark = pytest.mark.usefixtures("quick_baselines", "no_plots")


def train_here(config: ResNetStage2Config, options: TrainOptions) -> dict[str, Any]:
    """Like `train_in_subprocess`, but in this process, which saves seconds."""
    return train(config, options).results | {"peak_memory": 2**30, "memory": "process"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("jrdb"), SCENES, frames=3, people=7)


@pytest.fixture
def settings(data: Path) -> dict[str, Any]:
    return SMALL | {"data_path": str(data)}


@pytest.fixture(scope="module")
def finished_row(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The content of compare_row.json of a finished run."""
    out = tmp_path_factory.mktemp("compared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("classify.train.run.plot_run", lambda *_: None)
        compare(out, ["hog"], ["cached"], SMALL | {"data_path": str(data)}, train=train_here)
    row: dict[str, Any] = json.loads((out / "hog_cached" / "compare_row.json").read_text())
    return row


def table_rows(comparison: dict[str, Any]) -> list[list[str]]:
    """The cells of each row of the table, header and separator included."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in compare_table(comparison).splitlines()]


def test_metrics_are_those_of_the_runs(tmp_path: Path, settings: dict[str, Any]) -> None:
    comparison = compare(tmp_path, ["hog", "resnet18"], ["cached", "end_to_end"], settings, train=train_here)
    assert json.loads((tmp_path / "compare.json").read_text()) == comparison
    trained = [(row["model"], row["mode"]) for row in comparison["rows"]]
    assert trained == [("hog", "cached"), ("resnet18", "cached"), ("resnet18", "end_to_end")]
    for row in comparison["rows"]:
        folder = RunFolder(Path(row["run"]))
        results = json.loads(folder.results.read_text())
        assert (row["test_accuracy"], row["test_mpca"]) == (results["test_accuracy"], results["test_mpca"])
        history = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
        assert row["val_mpca"] == max(record["val_mpca"] for record in history)
        assert row["seconds_train"] == results["seconds"]["train"] > 0
        assert results["mode"] == row["mode"]
        assert sum(comparison["pairs_per_class"]["test"]) == sum(map(sum, results["test_confusion_matrix"]))
        assert results["baselines"]["majority"] == comparison["baselines"]["majority"]
    for row in comparison["rows"][:2]:
        visual = load_store(tmp_path / f"{row['model']}.store").visual
        assert row["zero_share"] == pytest.approx(float((np.asarray(visual) == 0).mean()))
    assert comparison["rows"][2]["zero_share"] is None


def test_the_table_shows_the_metrics(tmp_path: Path, settings: dict[str, Any]) -> None:
    comparison = compare(tmp_path, ["hog"], ["cached", "end_to_end"], settings, train=train_here)
    page = (tmp_path / "compare.md").read_text()
    assert page == compare_markdown(comparison)
    assert compare_table(comparison) in page
    header, _, hog, majority, spatial = table_rows(comparison)
    values = dict(zip(header, hog, strict=True))
    row = comparison["rows"][0]
    assert values["model"] == "hog, frozen"
    assert values["MPCA"] == f"{row['val_mpca']:.4f}"
    assert values["test accuracy"] == f"{100 * row['test_accuracy']:.1f}%"
    assert values["zero values"] == f"{100 * row['zero_share']:.1f}%"
    assert values["memory"] == "1.00 GiB"
    assert [majority[0], spatial[0]] == ["majority", "spatial_only"]
    assert majority[3] == f"{100 * comparison['baselines']['majority']['accuracy']:.1f}%"


def test_durations_are_readable_and_a_resumed_extraction_is_marked(tmp_path: Path, settings: dict[str, Any]) -> None:
    comparison = compare(tmp_path, ["hog"], ["cached"], settings, train=train_here)
    row = comparison["rows"][0]
    durations = []
    for seconds in (3.21, 600.0, 9000.0):
        changed = row | {"seconds_extract": seconds, "extract_resumed": seconds == 600.0}
        durations.append(table_rows(comparison | {"rows": [changed]})[2][6])
    assert durations == ["3.2 s", "≥ 10.0 min", "2.5 h"]


def test_each_run_uses_its_preset_and_settings_override_it(tmp_path: Path, data: Path) -> None:
    settings = {"data_path": str(data), "weights": "w.pth", "epochs": 7}
    planned = plan_runs(tmp_path, ["hog", "resnet50"], ["cached", "end_to_end"], settings)
    hog, cached, end_to_end = (run.config for run in planned)
    assert (hog.freeze_backbone, cached.freeze_backbone, end_to_end.freeze_backbone) == (True, True, False)
    assert (cached.batch_size, cached.learning_rate) == (24, 1e-3)
    assert (end_to_end.batch_size, end_to_end.learning_rate, end_to_end.visual_feature_dim) == (8, 5e-5, 512)
    assert {hog.epochs, cached.epochs, end_to_end.epochs} == {7}
    assert (hog.weights, cached.weights, end_to_end.weights) == ("imagenet", "w.pth", "w.pth")
    assert len({hog.checkpoint_dir, cached.checkpoint_dir, end_to_end.checkpoint_dir}) == 3


@pytest.mark.parametrize(
    ("backbones", "modes", "message"),
    [
        (["resnet19"], ["cached"], "--backbones has 'resnet19'"),
        ([], ["cached"], "--backbones has ''"),
        (["hog"], ["frozen"], "--modes has 'frozen'"),
        (["hog"], ["end_to_end"], "nothing to train"),
    ],
)
def test_unknown_names_are_refused(
    tmp_path: Path, settings: dict[str, Any], backbones: list[str], modes: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        compare(tmp_path / "out", backbones, modes, settings, train=train_here)
    assert not (tmp_path / "out").exists()


def test_runs_on_different_pairs_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    def train_on_fewer_pairs(config: ResNetStage2Config, options: TrainOptions) -> dict[str, Any]:
        results = train_here(config, options)
        if config.backbone_name == "resnet18":
            results["pairs_per_class"]["val"][1] -= 1
        return results

    with pytest.raises(MismatchError, match=r"resnet18_cached has .* in val.*hog_cached"):
        compare(tmp_path, ["hog", "resnet18"], ["cached"], settings, train=train_on_fewer_pairs)
    assert not (tmp_path / "compare.json").exists()


def test_the_same_command_reuses_finished_runs(tmp_path: Path, settings: dict[str, Any]) -> None:
    trained = []

    def train_with_interrupt(config: ResNetStage2Config, options: TrainOptions) -> dict[str, Any]:
        trained.append(Path(config.checkpoint_dir).name)
        if trained[-1] == "resnet18_cached" and len(trained) == 2:
            raise KeyboardInterrupt
        return train_here(config, options)

    def compare_again(backbones: list[str], settings: dict[str, Any]) -> dict[str, Any]:
        return compare(tmp_path, backbones, ["cached"], settings, train=train_with_interrupt)

    with pytest.raises(KeyboardInterrupt):
        compare_again(["hog", "resnet18"], settings)
    comparison = compare_again(["hog", "resnet18"], settings)
    assert trained == ["hog_cached", "resnet18_cached", "resnet18_cached"]
    assert compare_again(["hog", "resnet18"], settings) == comparison
    assert len(trained) == 3
    changed = compare_again(["hog"], settings | {"epochs": 1})
    assert trained[3:] == ["hog_cached"]
    assert changed["rows"][0]["extract_resumed"]


def test_p10_compare_trains_again_after_a_label_edit(tmp_path: Path, settings: dict[str, Any]) -> None:
    data = write_folder(tmp_path / "data", SCENES, frames=2, people=6)
    settings = settings | {"data_path": str(data)}
    options = []

    def train_and_note(config: ResNetStage2Config, given: TrainOptions) -> dict[str, Any]:
        options.append((Path(given.store).name, given.update))
        return train_here(config, given)

    def compare_again(**changes: Any) -> dict[str, Any]:
        return compare(tmp_path / "out", ["hog"], ["cached"], settings | changes, train=train_and_note)

    first = compare_again()
    labels = read_labels(data, SCENES[0])
    edited = next(person for people in labels.values() for person in people if person["H-interaction"])
    edited["H-interaction"] = []
    write_labels(data, SCENES[0], labels)
    second = compare_again()
    assert options == [("hog.store", False), ("hog.store", True)]
    assert sum(second["pairs_per_class"]["train"]) < sum(first["pairs_per_class"]["train"])
    compare_again(crop_size=40)  # another recipe needs another store
    assert options[2][0] not in {"hog.store", ""} and not options[2][1]
    assert compare_again()["pairs_per_class"] == second["pairs_per_class"]  # the first store still fits
    assert options[3:] == [("hog.store", False)]


def test_p10_compare_uses_a_finished_store_that_fits(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = str(Path(settings["data_path"]).resolve())
    command = ("--backbone", "hog", "--crop_size", "32", "--device", "cpu", "--num_workers", "0")
    assert run_cli("extract", "--data_path", data, *command) == 0
    (store,) = Path("stores").iterdir()
    comparison = compare(tmp_path / "out", ["hog"], ["cached"], settings | {"data_path": data}, train=train_here)
    assert not list((tmp_path / "out").glob("*.store"))
    assert comparison["rows"][0]["zero_share"] == store_info(store)["zero_share"]


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--data_path"):
        compare(tmp_path / "out", ["hog"], ["cached"], SMALL | {"data_path": "nowhere"}, train=train_here)
    assert not (tmp_path / "out").exists()


def test_the_command_prints_the_table_or_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trains in a child process."""
    monkeypatch.chdir(tmp_path)
    draw_dataset(tmp_path / "drawn", scenes=3, frames=1, people=25, seed=1)
    Path("c.toml").write_text('dropout = 0.1\nepochs = 9\ncrop_size = 32\ndevice = "cpu"\n')
    options = ("--data-path", "drawn", "--backbones", "hog", "--modes", "cached", "--config", "c.toml", "--epochs", "1")
    assert run_cli("compare", *options, "--lr", "0.01", "--out", "out", "--json") == 0
    captured = capsys.readouterr()
    comparison = json.loads(captured.out)
    assert "Comparing hog_cached (1 of 1)" in captured.err
    config = json.loads(RunFolder(Path("out/hog_cached")).config.read_text())
    assert (config["dropout"], config["epochs"], config["learning_rate"]) == (0.1, 1, 0.01)
    assert run_cli("compare", *options, "--lr", "0.01", "--out", "out") == 0
    assert capsys.readouterr().out.strip() == compare_table(comparison)
    assert run_cli("compare", *options, "--config", "missing.toml", "--out", "out") == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.pop("row"), "row is missing"),
        (lambda row: row.update(results=[]), "results is list, not an object"),
        (lambda row: row["row"].update(test_mpca="<b>"), r"row\.test_mpca is '<b>', not a number"),
        (lambda row: row["row"].update(zero_share=None), r"row\.zero_share is None, not a number"),
        (lambda row: row["row"].update(model="resnet50"), "is of another run than hog"),
        (lambda row: row["results"]["baselines"].pop("majority"), r"results\.baselines\.majority is missing"),
        (lambda row: row["results"]["pairs_per_class"]["val"].pop(), "pairs_per_class does not have one number"),
        (lambda row: row.update(key=1), "key is 1, not text"),
    ],
)
def test_h2_a_malformed_row_of_an_earlier_comparison_is_named(
    tmp_path: Path, finished_row: dict[str, Any], change: Callable[[dict[str, Any]], object], message: str
) -> None:
    row = json.loads(json.dumps(finished_row))
    change(row)
    path = tmp_path / "compare_row.json"
    path.write_text(json.dumps(row))
    with pytest.raises(DataError, match=rf"compare_row\.json.*{message}"):
        load_finished(path, finished_row["key"], "hog", "cached")


def test_h2_a_sound_row_is_loaded_and_one_of_other_settings_is_not(
    tmp_path: Path, finished_row: dict[str, Any]
) -> None:
    path = tmp_path / "compare_row.json"
    assert load_finished(path, "key", "hog", "cached") is None
    path.write_text(json.dumps(finished_row))
    assert load_finished(path, finished_row["key"], "hog", "cached") == finished_row
    assert load_finished(path, "another key", "hog", "cached") is None
    path.write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        load_finished(path, "key", "hog", "cached")


def test_h6_class_names_are_text_in_the_markdown_page(finished_row: dict[str, Any]) -> None:
    results = finished_row["results"]
    names = ["a|b", "c\n# d", "<img src=x>\x1b[2J"]
    pairs = {"train": [1, 2, 3]}
    comparison = {"rows": [finished_row["row"]], "baselines": {}, "classes": names, "pairs_per_class": pairs}
    page = compare_markdown(comparison | {"baselines": {"majority": results["baselines"]["majority"]}})
    assert r"- train: 6 pairs (a\|b 1, c\\n# d 2, &lt;img src=x&gt;\\x1b\[2J 3)" in page
    assert "\x1b" not in page
    assert "<img" not in page
