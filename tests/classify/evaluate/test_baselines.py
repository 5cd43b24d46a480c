"""The baselines against brute force."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from classify.data.selection import select_splits
from classify.evaluate.baselines import knn_baseline, majority_baseline, spatial_baseline
from classify.model.losses import Objective
from store.index import nearest
from tests.factories import make_features, make_tables, small_config, train_head


def test_nearest_neighbours_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    bank, queries = rng.normal(size=(300, 20)).astype(np.float32), rng.normal(size=(50, 20)).astype(np.float32)
    similarity, rows = nearest(bank, queries, 7)
    exact = NearestNeighbors(n_neighbors=7, metric="cosine", algorithm="brute").fit(bank)
    distance, expected = exact.kneighbors(queries)
    assert np.array_equal(rows, expected)
    assert similarity == pytest.approx(1 - distance, abs=1e-5)


def test_neighbours_tell_separate_clouds_apart() -> None:
    rng = np.random.default_rng(0)
    pairs = {}
    for name, count in (("train", 120), ("val", 30), ("test", 30)):
        label = np.arange(count) % 3
        pairs[name] = ((np.eye(3)[label] * 6 + rng.normal(size=(count, 3))).astype(np.float32), label.astype(np.int64))
    assert knn_baseline(pairs, 3)["mpca"] > 0.95


def test_neighbours_of_a_rare_class_are_heard() -> None:
    rng = np.random.default_rng(0)
    pairs = {}
    for name, sizes in (("train", (450, 50)), ("val", (100, 100)), ("test", (100, 100))):
        label = np.repeat([0, 1], sizes)
        rows = rng.normal(size=(len(label), 4)) + label[:, None] * 1.2  # clouds that overlap
        pairs[name] = (rows.astype(np.float32), label)
    found = knn_baseline(pairs, 2)
    assert found["k"] > 1
    assert min(found["per_class_accuracy"]) > 0.6


def test_the_majority_is_the_training_splits() -> None:
    tables = make_tables()
    splits = select_splits(tables, small_config())
    found = majority_baseline(splits, 3)
    expected = np.bincount(splits["train"].labels).argmax()
    assert found["class"] == expected
    assert found["accuracy"] == pytest.approx((splits["test"].labels == expected).mean())
    assert found["mpca"] == pytest.approx(1 / 3)


def test_spatial_features_alone_learn_what_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classify.evaluate.baselines.ROUNDS", 4)
    tables = make_tables(frames=20)
    tables.spatial[:, 2] = tables.label + np.random.default_rng(0).normal(0, 0.2, len(tables.label))
    splits = select_splits(tables, small_config())
    objective = Objective.from_config(small_config(), [1.0, 1.0, 1.0], torch.device("cpu"))
    before = torch.get_rng_state()
    one = spatial_baseline(tables, splits, objective, False, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert one["mpca"] > 0.9
    assert one == spatial_baseline(tables, splits, objective, False, 0)


def test_pictures_are_drawn(tmp_path: Path) -> None:
    run = train_head(make_features(make_tables()), small_config(tmp_path / "r", epochs=2))
    for name in ("confusion_matrix.png", "curves.png"):
        assert (run.folder / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
