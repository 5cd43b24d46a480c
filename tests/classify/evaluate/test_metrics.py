"""Metrics against scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, recall_score

from classify.evaluate.metrics import compute_metrics


@given(st.integers(2, 60), st.integers(2, 5), st.integers(0, 1000))
def test_metrics_equal_scikit_learn(count: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, count)
    label[-1] = (label[0] + 1) % classes  # scikit-learn warns if there is only one class
    prediction = rng.choice(label, count)  # and if a predicted class is not among the labels
    metrics = compute_metrics(torch.tensor(label), torch.tensor(prediction), classes)
    assert metrics.confusion_matrix == confusion_matrix(label, prediction, labels=range(classes)).tolist()
    assert metrics.accuracy == pytest.approx(accuracy_score(label, prediction))
    assert metrics.mpca == pytest.approx(balanced_accuracy_score(label, prediction))
    assert metrics.classes_present == len(set(label))
    recalls = recall_score(label, prediction, labels=range(classes), average=None, zero_division=0.0)
    for c, recall in enumerate(metrics.per_class_accuracy):
        assert recall == (pytest.approx(recalls[c]) if c in label else None)


def test_a_class_that_is_only_predicted_is_not_present() -> None:
    metrics = compute_metrics(torch.tensor([0, 0]), torch.tensor([0, 2]), 3)
    assert (metrics.mpca, metrics.classes_present, metrics.per_class_accuracy) == (0.5, 1, [0.5, None, None])
