"""The selection of each split's pairs by scene, frame interval and class."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from classify.data.selection import log_selection, select_split, select_splits
from configs.classes import PairClass
from configs.errors import SplitError
from configs.splits import SPLIT_NAMES, SceneSplit
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
    with pytest.raises(SplitError, match="no pair of a configured class"):
        select_splits(unmatched, small_config())


def test_excluded_pairs_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    tables = with_labels(make_tables(("a", "b", "c", "d", "extra")), np.arange(250) % 4, SETS)
    config = replace(small_config(), classes=(*small_config().classes, PairClass("Talk", ("conversation",))))
    with caplog.at_level(logging.INFO, "stage2"):
        log_selection(tables, config, select_splits(tables, config))
    text = caplog.text
    assert "extra" in text
    assert "belong to no class" in text
    assert "match several classes" in text
    assert "no Standing Together" in text
