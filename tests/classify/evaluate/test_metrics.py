"""Metrics against scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, recall_score

from classify.evaluate.metrics import compute_metrics


@given(st.integers(2, 60), st.integers(2, 5), st.integers(0, 1000))
def test_they_equal_scikit_learns(count: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, count)
    label[-1] = (label[0] + 1) % classes  # scikit-learn warns where a single class occurs
    answer = rng.choice(label, count)  # and of answers that are no label
    found = compute_metrics(torch.tensor(label), torch.tensor(answer), classes)
    assert found.confusion_matrix == confusion_matrix(label, answer, labels=range(classes)).tolist()
    assert found.accuracy == pytest.approx(accuracy_score(label, answer))
    assert found.mpca == pytest.approx(balanced_accuracy_score(label, answer))
    assert found.classes_present == len(set(label))
    recalls = recall_score(label, answer, labels=range(classes), average=None, zero_division=0.0)
    for c, recall in enumerate(found.per_class_accuracy):
        assert recall == (pytest.approx(recalls[c]) if c in label else None)


def test_a_class_that_is_only_answered_does_not_occur() -> None:
    found = compute_metrics(torch.tensor([0, 0]), torch.tensor([0, 2]), 3)
    assert (found.mpca, found.classes_present, found.per_class_accuracy) == (0.5, 1, [0.5, None, None])
