"""The selection of each split's pairs by scene, frame interval and class."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from classify.data.selection import log_selection, select_split, select_splits
from configs.classes import PairClass
from configs.errors import SplitError
from configs.resnet_stage2_config import ResNetStage2Config
from configs.splits import SPLIT_NAMES, SceneSplit
from store.tables import Tables
from tests.factories import make_tables, small_config, with_labels

SETS = (("walking together",), ("conversation", "sitting together"), ("conversation",), ())


def test_splits_are_disjoint_by_scene_and_cover_all_pairs() -> None:
    tables = make_tables()
    splits = select_splits(tables, small_config())
    rows = np.concatenate([splits[name].pairs for name in SPLIT_NAMES])
    assert sorted(rows.tolist()) == list(range(len(tables.pair)))
    for name in SPLIT_NAMES:
        scenes = {tables.scenes[s] for s in tables.frame_scene[tables.pair_frame[splits[name].pairs]]}
        assert scenes == set(small_config().split.scenes(name))


@pytest.mark.parametrize("interval", [1, 2, 3, 10])
def test_the_interval_counts_annotated_frames(interval: int) -> None:
    tables = make_tables(frames=10)
    split = select_split(tables, small_config(frame_interval=interval), "train")
    frames = set(tables.frame_index[tables.pair_frame[split.pairs]].tolist())
    assert frames == set(range(0, 10, interval))


def test_labels_map_to_the_configured_classes() -> None:
    tables = with_labels(make_tables(), np.arange(200) % 4, SETS)
    three = select_split(tables, small_config(), "train")
    assert sorted(set(three.labels.tolist())) == [0, 2]
    classes = (PairClass("Talk", ("conversation",)), PairClass("Sit", ("sitting together",)))
    first = select_split(tables, small_config(classes=classes), "train")
    assert set(first.labels.tolist()) == {0}  # a pair that matches both belongs to the first
    reversed_order = select_split(tables, small_config(classes=classes[::-1]), "train")
    assert set(reversed_order.labels.tolist()) == {0, 1}


def test_an_empty_split_is_refused_by_name() -> None:
    tables = make_tables(scenes=("a", "c"))
    with pytest.raises(SplitError, match="test split"):
        select_splits(tables, small_config())
    with pytest.raises(SplitError, match="val split"):
        select_splits(make_tables(), small_config(split=SceneSplit(("a",), ("nowhere",), ("d",))))
    unmatched = with_labels(make_tables(), np.zeros(200), (("waving",),))
    with pytest.raises(
        SplitError, match="no pair of a configured class at frame interval 1: its labels are waving; list"
    ):
        select_splits(unmatched, small_config())
    odd = replace(make_tables(), frame_index=make_tables().frame_index * 2 + 1)
    with pytest.raises(SplitError, match=r"interval 2: its scenes have no label there; .* or lower --frame_interval"):
        select_splits(odd, small_config(frame_interval=2))


def test_excluded_pairs_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    tables = with_labels(make_tables(("a", "b", "c", "d", "extra")), np.arange(250) % 4, SETS)
    config = replace(small_config(), classes=(*small_config().classes, PairClass("Talk", ("conversation",))))
    with caplog.at_level(logging.INFO, "stage2"):
        log_selection(tables, config)
    text = caplog.text
    assert "extra" in text
    assert "belong to no class" in text
    assert "match several classes" in text


def logged(tables: Tables, config: ResNetStage2Config, caplog: pytest.LogCaptureFixture) -> list[str]:
    with caplog.at_level(logging.INFO, "stage2"):
        log_selection(tables, config)
    return caplog.messages


def test_the_log_counts_excluded_scenes_and_labels(caplog: pytest.LogCaptureFixture) -> None:
    names = ("a", "b", "c", "d", "e", "f", "g", "h", "i")  # e to i are in no split
    sets = (("walking together",), ("standing together",), ("sitting together", "walking together"), ("x", "y"), ("z",))
    labels = np.arange(450) % 10
    labels = np.array([0, 1, 2, 3, 3, 4, 0, 1, 2, 0])[labels]
    tables = with_labels(make_tables(names), labels, sets)
    lines = logged(tables, small_config(split=SceneSplit(("a", "b", "gone"), ("c",), ("d",))), caplog)
    assert lines == [
        "Scenes in no split: e, f, g, h and 1 more; their 250 pairs are excluded.",
        "Scenes of the split that are not in the data: gone.",
        "Pairs whose labels belong to no class: 135 (mostly 'x + y'); excluded.",
        "Pairs that match several classes: 90; the class listed first counts.",
    ]


def test_the_log_counts_labels_at_the_frame_interval(caplog: pytest.LogCaptureFixture) -> None:
    tables = with_labels(make_tables(), np.arange(200) % 4, SETS)  # 5 pairs a frame, 10 frames a scene
    used = tables.frame_index[tables.pair_frame] % 5 == 0
    expected = int((used & (tables.label >= 2)).sum())
    lines = logged(tables, small_config(frame_interval=5), caplog)
    assert next(line for line in lines if "no class" in line).startswith(
        f"Pairs whose labels belong to no class: {expected} ("
    )


def test_the_log_names_scenes_without_a_pair_and_nothing_on_sound_data(caplog: pytest.LogCaptureFixture) -> None:
    assert logged(make_tables(), small_config(), caplog) == []
    tables = make_tables()
    empty = make_tables(("b2",), pairs=0)
    joined = replace(
        tables,
        scenes=(*tables.scenes, "b2"),
        frame_scene=np.concatenate([tables.frame_scene, empty.frame_scene + 4]),
        frame_index=np.concatenate([tables.frame_index, empty.frame_index]),
    )
    assert logged(joined, small_config(split=SceneSplit(("a", "b", "b2"), ("c",), ("d",))), caplog) == [
        "Scenes without a labelled pair: b2."
    ]
