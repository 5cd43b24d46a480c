"""The table of classes and splits: counts, warnings, and classes without pairs."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classify.data.class_table import ClassRow, check_class_labels, class_table, class_warnings, log_class_table
from classify.data.selection import select_split, select_splits
from classify.report.html import write_report
from configs.classes import DEFAULT_CLASSES, PairClass
from configs.errors import SplitError
from configs.process.console import console
from configs.splits import SceneSplit
from store.tables import Tables
from tests.factories import LABELS, make_features, make_tables, small_config, train_head, with_labels

TALK = PairClass("Talk", ("conversation",))
SETS = (*((label,) for label in LABELS), ("conversation", "sitting together"), ("conversation",))


def talking_tables() -> Tables:
    """50 pairs a scene (a, b train; c val; d test), each fifth of them with each of SETS; and an excluded scene."""
    return with_labels(make_tables(("a", "b", "c", "d", "extra")), np.arange(250) % 5, SETS)


def test_r9_r10_the_table_counts_each_class_in_each_split_and_what_went_to_earlier_classes() -> None:
    config = small_config(classes=(*DEFAULT_CLASSES, TALK))
    tables = talking_tables()
    table = class_table(tables, config, select_splits(tables, config))
    assert table == {
        "Walking Together": ClassRow(20, 10, 10, 0),
        "Standing Together": ClassRow(20, 10, 10, 0),
        "Sitting Together": ClassRow(40, 20, 20, 0),
        "Talk": ClassRow(20, 10, 10, 40),  # of 80 pairs with its label, "Sitting Together" gets 40
    }
    reordered = replace(config, classes=(TALK, *DEFAULT_CLASSES))
    table = class_table(tables, reordered, select_splits(tables, reordered))
    assert table["Talk"] == ClassRow(40, 20, 20, 0)
    assert table["Sitting Together"] == ClassRow(20, 10, 10, 40)


def test_r9_the_table_follows_the_frame_interval() -> None:
    config = small_config(frame_interval=5)  # 2 of 10 frames, each with one pair of each label set
    tables = talking_tables()
    assert class_table(tables, config, select_splits(tables, config))["Standing Together"] == ClassRow(4, 2, 2, 0)


@pytest.mark.parametrize("where", ["classes", "annotations"])
def test_r9_a_misspelt_label_is_an_error_with_the_near_match(where: str, tmp_path: Path) -> None:
    tables, classes = make_tables(), DEFAULT_CLASSES
    if where == "classes":
        classes = (PairClass("Walking Together", ("walkin together",)), *DEFAULT_CLASSES[1:])
        wanted, near = "walkin together", "walking together"
    else:
        tables = replace(tables, label_sets=(("waling together",), *tables.label_sets[1:]))
        wanted, near = "walking together", "waling together"
    with pytest.raises(SplitError) as error:
        train_head(make_features(tables), small_config(tmp_path / "run", classes=classes))
    text = str(error.value)
    assert f"class 'Walking Together': no pair in the data has the label '{wanted}'; did you mean '{near}'?" in text
    assert "'sitting together', 'standing together'" in text
    assert not (tmp_path / "run").exists()


NAMED = (*DEFAULT_CLASSES[:2], PairClass("Sit", ("sitting together",)))  # as a user may list them


def test_r9_a_label_that_only_frames_between_the_interval_have_is_an_error_with_the_interval() -> None:
    tables = make_tables()
    labels = np.where(tables.frame_index[tables.pair_frame] == 1, 2, np.arange(200) % 2)
    tables = with_labels(tables, labels, tuple((label,) for label in LABELS))
    check_class_labels(tables, small_config(classes=NAMED))
    with pytest.raises(SplitError, match="'sitting together' at frame interval 2; The labels in the data are 'stand"):
        check_class_labels(tables, small_config(classes=NAMED, frame_interval=2))


@pytest.mark.parametrize("free", ["bending together", "standing together together", "eating together"])
def test_r9_a_default_class_may_have_no_pair_unless_a_label_is_misspelt(free: str) -> None:
    tables = with_labels(make_tables(), np.arange(200) % 3, ((LABELS[0],), (free,), (LABELS[2],)))
    check_class_labels(tables, small_config())
    with pytest.raises(SplitError, match="class 'Standing Together': no pair"):  # named classes are meant
        check_class_labels(tables, small_config(classes=NAMED))
    for misspelt in ("standing togehter", "Standing_Together"):
        tables = with_labels(tables, tables.label, ((LABELS[0],), (misspelt,), (LABELS[2],)))
        with pytest.raises(SplitError, match=f"did you mean '{misspelt}'"):
            check_class_labels(tables, small_config())


@pytest.mark.usefixtures("quick_baselines", "no_plots")
def test_r9_a_small_data_set_without_a_default_class_trains_with_a_warning(tmp_path: Path) -> None:
    tables = with_labels(make_tables(), np.arange(200) % 2, ((LABELS[0],), (LABELS[2],)))
    stream = io.StringIO()
    with console(stream):
        run = train_head(make_features(tables), small_config(tmp_path / "run", epochs=1))
    lines = stream.getvalue().splitlines()
    (warning,) = run.results["warnings"]
    assert warning.startswith("no split has a pair of class 'Standing Together': ")
    shown = [number for number, line in enumerate(lines) if line == f"Warning: {warning}."]
    first_epoch = next(number for number, line in enumerate(lines) if line.startswith("Train Epoch"))
    assert len(shown) == 2 and shown[0] < first_epoch < shown[1]  # at the start, and beside the final metrics
    assert run.results["test_per_class_accuracy"][1] is None
    assert "has a pair of class" in write_report(run.folder, tmp_path / "report.html").read_text()


def test_r9_training_on_a_single_class_is_refused(tmp_path: Path) -> None:
    tables = with_labels(make_tables(), np.arange(200) >= 100, ((LABELS[0],), (LABELS[2],)))  # b's and c's pairs differ
    with pytest.raises(SplitError, match="the train split has pairs of class 'Walking Together' only, and training"):
        train_head(make_features(tables), small_config(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    (one,) = DEFAULT_CLASSES[:1]
    with pytest.raises(SplitError, match="only, and training needs two classes"):
        train_head(make_features(make_tables()), small_config(tmp_path / "run", classes=(one,)))


def test_r10_a_class_whose_pairs_all_go_to_an_earlier_class_is_an_error() -> None:
    tables = with_labels(make_tables(), np.arange(200) % 4, SETS[:4])
    with pytest.raises(SplitError, match=r"'Talk' gets no pair: all 50 with .* \(50 to 'Sitting Together'\)"):
        check_class_labels(tables, small_config(classes=(*DEFAULT_CLASSES, TALK)))


def single_class_test() -> tuple[Tables, dict[str, Any]]:
    """Tables and settings whose test scene has one class only."""
    tables = make_tables()
    in_test = tables.frame_scene[tables.pair_frame] == 3
    return replace(tables, label=np.where(in_test, 1, tables.label).astype(np.int32)), {"epochs": 1}


def test_r9_warnings_name_what_a_split_lacks() -> None:
    rows = {"A": ClassRow(1, 1, 1, 0), "B": ClassRow(1, 1, 0, 0), "C": ClassRow(0, 1, 2, 0)}
    assert class_warnings(rows) == [
        "the train split has no pair of class 'C': the model cannot learn this class",
        "the test split has no pair of class 'B': the test MPCA is the mean over 2 of 3 classes",
    ]
    assert class_warnings({"A": ClassRow(1, 1, 1, 0), "B": ClassRow(1, 1, 9, 0)}) == []
    (everywhere,) = class_warnings({"A": ClassRow(1, 1, 1, 0), "B": ClassRow(1, 1, 9, 0), "C": ClassRow(0, 0, 0, 4)})
    assert everywhere == "no split has a pair of class 'C': the model cannot learn it, and no metric includes it"
    single = class_warnings({"A": ClassRow(1, 1, 1, 0), "B": ClassRow(1, 1, 0, 0)})
    assert [text[:44] for text in single][1] == "the test split has pairs of class 'A' only: "


@pytest.mark.usefixtures("quick_baselines", "no_plots")
def test_r9_table_and_warnings_are_in_log_results_and_report(tmp_path: Path) -> None:
    tables, settings = single_class_test()
    stream = io.StringIO()
    with console(stream):
        run = train_head(make_features(tables), small_config(tmp_path / "run", **settings))
    lines = stream.getvalue().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("Pairs per class:"))
    assert start < next(number for number, line in enumerate(lines) if line.startswith("Train Epoch"))
    table = run.results["class_table"]
    for offset, (name, row) in enumerate(table.items(), 1):
        line = lines[start + offset]
        assert line.startswith(f"  {name} ")
        assert line.split()[-4:] == [str(row[key]) for key in ("train", "val", "test", "to_earlier_class")]
    assert table["Standing Together"]["test"] == run.results["test_pairs"] == 50
    warnings = run.results["warnings"]
    assert len(warnings) == 3  # two absent classes, and that one is left
    test_line = next(number for number, line in enumerate(lines) if line.startswith("Test, best model"))
    expected = [f"Warning: {warning}." for warning in warnings]
    assert [line for line in lines[test_line:] if line.startswith("Warning: ")] == expected
    assert [line for line in lines[:test_line] if line.startswith("Warning: ")] == expected
    page = write_report(run.folder, tmp_path / "report.html").read_text()
    assert page.count('<p class="warning">') == 3
    assert f'<tr><td>Standing Together</td><td class="n">{table["Standing Together"]["train"]}</td>' in page


def test_the_columns_of_the_logged_table_line_up(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "stage2"):
        log_class_table({"A": ClassRow(1, 20, 300, 4), "A very long name\nof a class": ClassRow(1234, 5, 6, 7)})
    head, *rows = caplog.messages
    for index, name in enumerate(("train", "val", "test")):
        end = head.index(f" {name}") + 1 + len(name)
        assert [row[:end].split()[-1] for row in rows] == [("1", "20", "300")[index], ("1,234", "5", "6")[index]]
        assert all(row[end] == " " for row in rows)
    assert {row.rindex(" ") + 1 for row in rows} == {head.index("given to")}


def test_r9_a_misspelt_scene_is_named_with_its_near_match() -> None:
    tables = make_tables(("cafe-2019_0", "b", "c", "d"))
    config = small_config(split=SceneSplit(("cafe-2019_O",), ("c",), ("d",)))
    with pytest.raises(SplitError, match="for 'cafe-2019_O', did you mean 'cafe-2019_0'"):
        select_split(tables, config, "train")
    for written in ("CAFE-2019_0", "cafe-2019_0.json"):
        with pytest.raises(SplitError, match=f"for '{written}', did you mean 'cafe-2019_0'"):
            select_split(tables, small_config(split=SceneSplit((written,), ("c",), ("d",))), "train")
    with pytest.raises(SplitError, match="the val split is empty; list some of cafe-2019_0, b, c, d as val"):
        select_split(tables, small_config(split=SceneSplit(("b",), (), ("d",))), "val")
    listed = small_config(split=SceneSplit(("cafe-2019_O",), ("c",), ("d", "cafe-2019_0")))
    with pytest.raises(SplitError) as error:  # the near scene is in another split already
        select_split(tables, listed, "train")
    assert "did you mean" not in str(error.value)
