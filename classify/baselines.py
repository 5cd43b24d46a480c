"""What a model has to beat: the majority class, the 8D features alone, and nearest neighbours."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from classify.batches import Source
from classify.metrics import Metrics, confusion, metrics_of
from classify.model import Stage2Model
from classify.selection import Split
from store.neighbors import nearest

NEIGHBOURS = (1, 5, 15, 45)  # the k that are tried on the validation split
Floats32 = NDArray[np.float32]
Labels = NDArray[np.int64]


def majority(splits: Mapping[str, Split], num_classes: int) -> dict[str, Any]:
    """The figures of answering with the most frequent class of the training split; ties go to the first class."""
    answer = int(np.argmax(splits["train"].counts(num_classes)))
    label = splits["test"].labels
    return {"class": answer} | figures(_metrics(label, np.full_like(label, answer), num_classes))


@torch.no_grad()
def pair_features(model: Stage2Model, source: Source) -> tuple[Floats32, Labels]:
    """Symmetric pair features [va + vb, |va - vb|] (m, 2D) of the backbone's output, and the labels (m,), in order."""
    model.eval()
    rows, labels = [], []
    for batch in source.epoch():
        persons = model.features(batch)  # (P, D)
        va, vb = persons[batch.a], persons[batch.b]
        rows.append(torch.cat((va + vb, (va - vb).abs()), dim=1).cpu().numpy())
        labels.append(batch.label.cpu().numpy())
    return np.concatenate(rows), np.concatenate(labels)


def knn(pairs: Mapping[str, tuple[Floats32, Labels]], num_classes: int) -> dict[str, Any]:
    """Nearest training pairs by cosine similarity of standardised pair features, (m, 2D) and (m,) for each split.

    Each neighbour votes with one over the size of its class among the training pairs; of a few k, that with the
    best MPCA on the validation split is used (of several, the smallest).
    """
    bank, bank_label = pairs["train"]
    mean, std = bank.mean(0), bank.std(0)
    scale = 1.0 / np.maximum(std, 0.01 * std.mean() + 1e-6)
    most = min(NEIGHBOURS[-1], len(bank))
    tries = [k for k in NEIGHBOURS if k <= most]
    found = {name: nearest((bank - mean) * scale, (pairs[name][0] - mean) * scale, most)[1] for name in ("val", "test")}

    def vote(name: str, k: int) -> Metrics:
        return _metrics(pairs[name][1], _vote(bank_label[found[name][:, :k]], bank_label, num_classes), num_classes)

    best = max(tries, key=lambda k: (vote("val", k).mpca, -k))
    return {"k": best, "train_pairs": len(bank)} | figures(vote("test", best))


def figures(metrics: Metrics) -> dict[str, Any]:
    """The part of a baseline's metrics that the results hold."""
    return {
        "accuracy": metrics.accuracy,
        "mpca": metrics.mpca,
        "per_class_accuracy": metrics.per_class_accuracy,
        "classes_present": metrics.classes_present,
    }


def _vote(neighbours: Labels, bank_label: Labels, num_classes: int) -> Labels:
    """(Q,) the class with the heaviest vote among the labels (Q, k) of the neighbours; ties go to the first class."""
    counts = np.bincount(bank_label, minlength=num_classes)
    votes = np.stack([(neighbours == index).sum(1) for index in range(num_classes)], axis=1)  # (Q, C)
    answer: Labels = np.argmax(votes / np.maximum(counts, 1), axis=1).astype(np.int64)
    return answer


def _metrics(label: Labels, answer: Labels, num_classes: int) -> Metrics:
    return metrics_of(confusion(torch.from_numpy(label), torch.from_numpy(answer), num_classes))
