"""The baselines, on data whose result is known."""

import numpy as np
import pytest
import torch

from classify.data.selection import select_splits
from classify.evaluate.baselines import knn_baseline, majority_baseline, spatial_baseline
from classify.model.losses import Objective
from tests.factories import make_tables, small_config


def test_knn_classifies_separate_clusters() -> None:
    rng = np.random.default_rng(0)
    pairs = {}
    for name, count in (("train", 120), ("val", 30), ("test", 30)):
        label = np.arange(count) % 3
        pairs[name] = ((np.eye(3)[label] * 6 + rng.normal(size=(count, 3))).astype(np.float32), label.astype(np.int64))
    assert knn_baseline(pairs, 3)["mpca"] > 0.95


def test_knn_votes_are_balanced_by_class() -> None:
    rng = np.random.default_rng(0)
    pairs = {}
    for name, sizes in (("train", (450, 50)), ("val", (100, 100)), ("test", (100, 100))):
        label = np.repeat([0, 1], sizes)
        rows = rng.normal(size=(len(label), 4)) + label[:, None] * 1.2  # overlapping clusters
        pairs[name] = (rows.astype(np.float32), label)
    metrics = knn_baseline(pairs, 2)
    assert metrics["k"] > 1
    assert min(metrics["per_class_accuracy"]) > 0.6


def test_the_majority_class_is_that_of_the_training_split() -> None:
    tables = make_tables()
    splits = select_splits(tables, small_config())
    metrics = majority_baseline(splits, 3)
    expected = np.bincount(splits["train"].labels).argmax()
    assert metrics["class"] == expected
    assert metrics["accuracy"] == pytest.approx((splits["test"].labels == expected).mean())
    assert metrics["mpca"] == pytest.approx(1 / 3)


def test_the_spatial_baseline_learns_an_informative_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classify.evaluate.baselines.ROUNDS", 4)
    tables = make_tables(frames=20)
    tables.spatial[:, 2] = tables.label + np.random.default_rng(0).normal(0, 0.2, len(tables.label))
    splits = select_splits(tables, small_config())
    objective = Objective.from_config(small_config(), [1.0, 1.0, 1.0], torch.device("cpu"))
    state = torch.get_rng_state()
    metrics = spatial_baseline(tables, splits, objective, False, 0)
    assert torch.equal(torch.get_rng_state(), state)
    assert metrics["mpca"] > 0.9
    assert metrics == spatial_baseline(tables, splits, objective, False, 0)
