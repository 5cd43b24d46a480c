"""The baselines, on data whose result is known."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from classify.data.selection import select_splits
from classify.evaluate.baselines import _vote, knn_baseline, majority_baseline, spatial_baseline
from classify.model.losses import Objective
from classify.train import cached, end_to_end
from configs.process.console import console
from configs.splits import SPLIT_NAMES
from tests.factories import make_features, make_tables, small_config, train_head


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


def knn_pairs(scale: float = 1.0, shift: float = 0.0) -> dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Pairs whose class is in the second feature; the first has `scale` times as large noise and mean `shift`."""
    rng = np.random.default_rng(0)
    pairs = {}
    for name, count in (("train", 150), ("val", 60), ("test", 60)):
        label = np.arange(count) % 3
        noise = rng.normal(size=count) * scale + shift
        pairs[name] = (np.stack([noise, label - 1 + rng.normal(0, 0.1, count)], 1).astype(np.float32), label)
    return pairs


def test_knn_is_invariant_to_the_scale_of_a_feature() -> None:
    """Unscaled, the noise would decide."""
    assert knn_baseline(knn_pairs(scale=1000.0), 3)["mpca"] == knn_baseline(knn_pairs(), 3)["mpca"]
    assert knn_baseline(knn_pairs(scale=1000.0), 3)["mpca"] > 0.8


def test_knn_is_invariant_to_a_constant_offset() -> None:
    """Not centred, all cosine similarities would be about 1, and float32 would round the rest away."""
    assert knn_baseline(knn_pairs(shift=50.0), 3)["mpca"] > 0.8


@pytest.mark.parametrize("deviation", [0.0, 1e-6])
def test_knn_limits_the_weight_of_a_feature_that_hardly_varies(deviation: float) -> None:
    """Scaled by its own deviation, a feature that is almost constant in training would decide alone elsewhere."""
    rng = np.random.default_rng(1)
    pairs = {}
    for name, (rows, label) in knn_pairs().items():
        noise = rng.normal(0, deviation if name == "train" else 1e-3, len(rows)).astype(np.float32)
        pairs[name] = (np.c_[rows, noise], label)
    assert knn_baseline(pairs, 3)["mpca"] == pytest.approx(knn_baseline(knn_pairs(), 3)["mpca"], abs=0.05)


@pytest.mark.parametrize(("train", "candidates"), [(4, {1}), (5, {1, 5}), (15, {1, 5, 15}), (45, {1, 5, 15, 45})])
def test_knn_tries_every_k_up_to_the_number_of_training_pairs(
    monkeypatch: pytest.MonkeyPatch, train: int, candidates: set[int]
) -> None:
    votes = set()

    def record(neighbours: Any, bank_label: Any, num_classes: int) -> Any:
        votes.add(neighbours.shape[1])
        return _vote(neighbours, bank_label, num_classes)

    monkeypatch.setattr("classify.evaluate.baselines._vote", record)
    pairs = knn_pairs()
    knn_baseline(pairs | {"train": (pairs["train"][0][:train], pairs["train"][1][:train])}, 3)
    assert votes == candidates


def test_knn_ties_go_to_the_smallest_k() -> None:
    pairs = {
        name: (np.eye(3, dtype=np.float32)[np.arange(60) % 3], np.arange(60) % 3) for name in ("train", "val", "test")
    }
    assert knn_baseline(pairs, 3)["k"] == 1


@pytest.mark.usefixtures("quick_baselines", "no_plots")
def test_r17_the_knn_baseline_is_capped_in_every_split_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(cached.KNN_PAIRS[name] <= 20_000 and end_to_end.KNN_PAIRS[name] <= 20_000 for name in SPLIT_NAMES)
    stream = io.StringIO()
    with console(stream):
        whole = train_head(make_features(make_tables()), small_config(tmp_path / "whole"))
    assert "The baseline knn uses" not in stream.getvalue()
    assert whole.results["baselines"]["knn"]["test_pairs"] == 50
    monkeypatch.setattr("classify.train.cached.KNN_PAIRS", {"train": 60, "val": 50, "test": 20})
    with console(stream):
        capped = train_head(make_features(make_tables()), small_config(tmp_path / "capped"))
    lines = [line for line in stream.getvalue().splitlines() if line.startswith("The baseline knn uses")]
    assert [line.partition("uses ")[2].partition(" pairs")[0] for line in lines] == ["60 of 100 train", "20 of 50 test"]
    knn = capped.results["baselines"]["knn"]
    assert (knn["train_pairs"], knn["test_pairs"]) == (60, 20)
    assert capped.results["test_pairs"] == 50  # the model is tested on all
