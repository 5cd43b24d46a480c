"""What a model has to beat: the majority class, the 8D features alone, and nearest neighbours."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from classify.data.batches import Source, draw_order, sampling_weights
from classify.data.selection import Split
from classify.evaluate.metrics import Metrics, compute_metrics, confusion
from classify.model.head import Stage2Model, mean_and_std
from classify.model.losses import Objective
from extract.annotations.spatial import SPATIAL_DIM
from store.index import nearest
from store.tables import Tables

NEIGHBOURS = (1, 5, 15, 45)  # the k that are tried on the validation split
Floats32 = NDArray[np.float32]
Labels = NDArray[np.int64]


def majority_baseline(splits: Mapping[str, Split], num_classes: int) -> dict[str, Any]:
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


def knn_baseline(pairs: Mapping[str, tuple[Floats32, Labels]], num_classes: int) -> dict[str, Any]:
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
    return compute_metrics(confusion(torch.from_numpy(label), torch.from_numpy(answer), num_classes))


ROUND = 100  # training steps between two looks at the validation split
ROUNDS, PATIENCE = 20, 5  # at most, and without a better look
BATCH = 256
WIDTH = 64
RATE = 3e-3


def spatial_baseline(
    tables: Tables, splits: Mapping[str, Split], objective: Objective, balanced: bool, seed: int
) -> dict[str, Any]:
    """Trained with the run's own loss and balance, and chosen by validation MPCA as the run's model is.

    All eight features are used whatever the run switches off, so that the figures of several runs compare. It is
    trained on the CPU and leaves PyTorch's global random numbers as they were.
    """
    data = {name: _rows(tables, split) for name, split in splits.items()}
    objective = Objective(objective.class_weight.cpu(), objective.mpca_weight, objective.acc_weight)
    weights = sampling_weights(splits["train"]) if balanced else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        best = _train(data["train"], data["val"], objective, weights)
    return figures(_network_metrics(best, data["test"]))


def _train(
    train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], objective: Objective, weights: Tensor | None
) -> nn.Sequential:
    model = _model(train[0], len(objective.class_weight))
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    best, best_mpca, since = {}, -1.0, 0
    for _ in range(ROUNDS):
        for rows in _draws(len(train[1]), weights):
            optimizer.zero_grad()
            loss = objective.loss(model(train[0][rows]), train[1][rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        mpca = _network_metrics(model, val).mpca
        since += 1
        if mpca > best_mpca:
            best, best_mpca, since = {key: value.clone() for key, value in model.state_dict().items()}, mpca, 0
        if since == PATIENCE:
            break
    model.load_state_dict(best)
    return model


def _draws(samples: int, weights: Tensor | None) -> list[Tensor]:
    """The rows of the batches between two looks, as many permutations (or draws) as they need."""
    size = min(BATCH, samples)
    epochs = -(-ROUND * size // samples)
    order = torch.cat([draw_order(samples, weights, torch.default_generator) for _ in range(epochs)])
    return list(torch.split(order, size)[:ROUND])


class _Standardise(nn.Module):
    """(m, 8) rows of the training split's scale."""

    mean: Tensor
    std: Tensor

    def __init__(self, rows: Tensor):
        super().__init__()
        mean, std = mean_and_std([rows])
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", std.float())

    def forward(self, rows: Tensor) -> Tensor:
        return (rows - self.mean) / self.std


def _model(rows: Tensor, num_classes: int) -> nn.Sequential:
    hidden = (nn.Linear(SPATIAL_DIM, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
    return nn.Sequential(_Standardise(rows), *hidden, nn.Linear(WIDTH, num_classes))


def _rows(tables: Tables, split: Split) -> tuple[Tensor, Tensor]:
    """Spatial features (m, 8) float32 and labels (m,)."""
    spatial = tables.spatial[split.pairs].astype(np.float32)
    return torch.from_numpy(spatial), torch.from_numpy(split.labels.copy())


@torch.no_grad()
def _network_metrics(model: nn.Module, data: tuple[Tensor, Tensor]) -> Metrics:
    logits = model(data[0])
    return compute_metrics(confusion(data[1], logits.argmax(1), logits.shape[1]))
