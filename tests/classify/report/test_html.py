"""The report of a run folder from elsewhere: nothing from it becomes markup, and no other file is embedded."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from classify.report.html import write_report
from classify.report.results import read_results
from classify.run_folder import RunFolder
from configs.errors import DataError
from tests.factories import make_features, make_tables, small_config, train_head

PNG = b"\x89PNG\r\n\x1a\n" + b"pixels"
SCRIPT = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\x1b[2J"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of a finished run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("classify.train.run.plot_run", lambda *_: None)
        return train_head(make_features(make_tables()), small_config(folder)).results


def write_results(folder: Path, results: Any) -> Path:
    RunFolder(folder).results.write_text(json.dumps(results))
    return folder


def report_of(folder: Path) -> str:
    return write_report(folder, folder / "report.html").read_text(encoding="utf-8")


def with_scripts(value: Any) -> Any:
    """`value` with SCRIPT in every text and in every name that may be any text."""
    if isinstance(value, str):
        return value + SCRIPT
    if isinstance(value, list):
        return [with_scripts(item) for item in value]
    if isinstance(value, dict):
        return {name: with_scripts(item) for name, item in value.items()} | {"x" + SCRIPT: 0.5}
    return value


def test_h2_no_field_of_the_results_becomes_markup(tmp_path: Path, results: dict[str, Any]) -> None:
    changed = {name: with_scripts(value) for name, value in results.items()}
    changed["baselines"] = {"b" + SCRIPT: {"accuracy": 0.5, "mpca": 0.5}}
    changed["seconds"] = {"train": 1.0, "t" + SCRIPT: 1.0}
    changed["versions"] = {"v" + SCRIPT: SCRIPT}
    changed["class_table"] = {"c" + SCRIPT: dict.fromkeys(("train", "val", "test", "to_earlier_class"), 1)}
    changed["warnings"] = ["w" + SCRIPT]
    skipped = {kind: {"r" + SCRIPT: 1} for kind in ("frames", "persons", "pairs")}
    changed["data"] = results["data"] | {"skipped": skipped, "reasons" + SCRIPT: SCRIPT}
    page = report_of(write_results(tmp_path, changed))
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "\x1b" not in page
    assert not re.search(r"<[^>]*alert", page)


def change_field(name: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda results: results | {name: value}


MALFORMED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "script as count": (change_field("test_classes_present", "<script>"), "test_classes_present is '<script>'"),
    "text as metric": (change_field("test_mpca", "high"), "test_mpca is 'high', not a number"),
    "infinite metric": (change_field("test_accuracy", float("inf")), "test_accuracy is inf, not a number"),
    "no classes": (change_field("classes", None), "classes is None, not a list"),
    "fewer classes": (change_field("classes", ["a"]), "test_per_class_accuracy does not have 1 entries"),
    "ragged matrix": (change_field("test_confusion_matrix", [[1], [2], [3]]), "test_confusion_matrix does not have"),
    "list as baselines": (change_field("baselines", [1]), "baselines is list, not an object"),
    "baseline without metrics": (change_field("baselines", {"knn": {}}), "baselines.knn.accuracy is missing"),
    "no seconds": (change_field("seconds", {}), "seconds.train is missing"),
    "config without backbone": (change_field("config", {}), "config.backbone_name is missing"),
    "versions as text": (change_field("versions", "1.0"), "versions is '1.0', not an object"),
    "number too large": (change_field("test_pairs", 10**400), "test_pairs is int, not an integer"),
    "missing mode": (lambda results: {key: results[key] for key in results if key != "mode"}, "mode is missing"),
    "a list": (lambda results: [results], "the document is list, not an object"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_h2_malformed_results_give_one_sentence_that_names_the_field(
    tmp_path: Path, results: dict[str, Any], name: str
) -> None:
    change, message = MALFORMED[name]
    write_results(tmp_path, change(results))
    with pytest.raises(DataError, match=re.escape(f"final_results.json: {message}")) as caught:
        write_report(tmp_path, tmp_path / "report.html")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("content", [b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_h2_results_that_are_not_json_give_one_sentence(tmp_path: Path, content: bytes) -> None:
    RunFolder(tmp_path).results.write_bytes(content)
    with pytest.raises(DataError, match=r"final_results\.json is not valid JSON"):
        read_results(tmp_path)


def test_h3_pictures_that_are_links_or_no_pictures_are_not_embedded(tmp_path: Path, results: dict[str, Any]) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(PNG + b"secret")
    run = tmp_path / "run"
    run.mkdir()
    write_results(run, results)
    RunFolder(run).curves.symlink_to(secret)
    RunFolder(run).confusion_matrix.write_bytes(b"root:x:0:0")
    page = report_of(run)
    assert "base64" not in page
    assert page.count("is not a regular file with an image, so it is left out") == 2
    RunFolder(run).curves.unlink()
    RunFolder(run).curves.write_bytes(PNG)
    assert report_of(run).count("data:image/png;base64,") == 1


def test_h3_results_that_are_a_link_are_not_read(tmp_path: Path, results: dict[str, Any]) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "run").mkdir()
    RunFolder(tmp_path / "run").results.symlink_to(RunFolder(write_results(tmp_path / "a", results)).results)
    with pytest.raises(DataError, match="is a link"):
        read_results(tmp_path / "run")


@pytest.mark.timeout(20)
def test_h4_fifos_in_a_run_folder_do_not_block(tmp_path: Path, results: dict[str, Any]) -> None:
    os.mkfifo(RunFolder(tmp_path).results)
    with pytest.raises(DataError, match="not a regular file"):
        read_results(tmp_path)
    RunFolder(tmp_path).results.unlink()
    os.mkfifo(RunFolder(write_results(tmp_path, results)).curves)
    assert "base64" not in report_of(tmp_path)
