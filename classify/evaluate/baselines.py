"""The baselines that a model must beat: the majority class, nearest neighbours, and the spatial features alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from classify.data.batches import Source, draw_order, pair_tensors, sampling_weights
from classify.data.selection import Split
from classify.evaluate.metrics import Metrics, compute_metrics
from classify.model.head import Stage2Model, mean_and_std
from classify.model.losses import Objective
from extract.annotations.spatial import SPATIAL_DIM
from store.index import nearest
from store.tables import Tables

NEIGHBOURS = (1, 5, 15, 45)  # values of k that are compared on the validation split
# training of the network on spatial features
ROUND = 100  # steps between two evaluations on the validation split
ROUNDS = 20  # at most
PATIENCE = 5  # rounds without improvement
BATCH = 256
WIDTH = 64  # of the two hidden layers
RATE = 3e-3

Floats32 = NDArray[np.float32]
Labels = NDArray[np.int64]


def majority_baseline(splits: Mapping[str, Split], num_classes: int) -> dict[str, Any]:
    """Test metrics of always predicting the most frequent training class; ties go to the first class."""
    prediction = int(np.argmax(splits["train"].counts(num_classes)))
    label = torch.from_numpy(splits["test"].labels.copy())
    return {"class": prediction} | _summary(compute_metrics(label, torch.full_like(label, prediction), num_classes))


@torch.no_grad()
def pair_features(model: Stage2Model, source: Source) -> tuple[Floats32, Labels]:
    """Symmetric pair features [va + vb, |va - vb|] (m, 2D) of the backbone's output and labels (m,), in table order."""
    model.eval()
    rows, labels = [], []
    for batch in source.epoch():
        persons = model.features(batch)  # (P, D)
        va, vb = persons[batch.a], persons[batch.b]
        rows.append(torch.cat((va + vb, (va - vb).abs()), dim=1).cpu().numpy())
        labels.append(batch.label.cpu().numpy())
    return np.concatenate(rows), np.concatenate(labels)


def knn_baseline(pairs: Mapping[str, tuple[Floats32, Labels]], num_classes: int) -> dict[str, Any]:
    """Test metrics of k nearest training pairs by cosine similarity of standardised pair features.

    Each neighbour votes with the inverse size of its class among the training pairs. k is chosen by the MPCA on the
    validation split; ties go to the smallest.

    Args:
        pairs: for each split the pair features (m, 2D) and labels (m,).
    """
    bank, bank_label = pairs["train"]
    mean, std = bank.mean(0), bank.std(0)
    scale = 1.0 / np.maximum(std, 0.01 * std.mean() + 1e-6)
    largest = min(NEIGHBOURS[-1], len(bank))
    rows = (bank - mean) * scale
    neighbours = {name: nearest(rows, (pairs[name][0] - mean) * scale, largest)[1] for name in ("val", "test")}

    def metrics(name: str, k: int) -> Metrics:
        prediction = _vote(bank_label[neighbours[name][:, :k]], bank_label, num_classes)
        return compute_metrics(torch.from_numpy(pairs[name][1]), torch.from_numpy(prediction), num_classes)

    candidates = [k for k in NEIGHBOURS if k <= largest]
    best = max(candidates, key=lambda k: (metrics("val", k).mpca, -k))
    sizes = {"train_pairs": len(bank), "test_pairs": len(pairs["test"][1])}
    return {"k": best} | sizes | _summary(metrics("test", best))


def _vote(neighbours: Labels, bank_label: Labels, num_classes: int) -> Labels:
    """(Q,) the class with the largest vote among the neighbours' labels (Q, k); ties go to the first class."""
    counts = np.bincount(bank_label, minlength=num_classes)
    votes = np.stack([(neighbours == index).sum(1) for index in range(num_classes)], axis=1)  # (Q, C)
    prediction: Labels = np.argmax(votes / np.maximum(counts, 1), axis=1).astype(np.int64)
    return prediction


def spatial_baseline(
    tables: Tables, splits: Mapping[str, Split], objective: Objective, balanced: bool, seed: int
) -> dict[str, Any]:
    """Test metrics of a small network on the spatial features alone.

    It is trained with the run's loss and balance, and the best round is chosen by validation MPCA, like the run's
    model. It always uses all eight features, so that results of different runs are comparable. Training runs on the
    CPU and does not change PyTorch's global random number generator.
    """
    cpu = torch.device("cpu")
    data = {name: pair_tensors(tables, split, cpu) for name, split in splits.items()}
    objective = Objective(objective.class_weight.cpu(), objective.mpca_weight, objective.acc_weight)
    weights = sampling_weights(splits["train"]) if balanced else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        best = _train(data["train"], data["val"], objective, weights)
    return _summary(_evaluate(best, *data["test"]))


def _train(
    train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], objective: Objective, weights: Tensor | None
) -> nn.Sequential:
    spatial, label = train
    model = _build_network(spatial, len(objective.class_weight))
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    best_state, best_mpca, rounds_without_improvement = {}, -1.0, 0
    for _ in range(ROUNDS):
        for rows in _draw_batches(len(label), weights):
            optimizer.zero_grad()
            loss = objective.loss(model(spatial[rows]), label[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        mpca = _evaluate(model, *val).mpca
        rounds_without_improvement += 1
        if mpca > best_mpca:
            best_state = {key: value.clone() for key, value in model.state_dict().items()}
            best_mpca, rounds_without_improvement = mpca, 0
        if rounds_without_improvement == PATIENCE:
            break
    model.load_state_dict(best_state)
    return model


def _draw_batches(samples: int, weights: Tensor | None) -> list[Tensor]:
    """The sample indices of each batch of a round, from as many permutations (or weighted draws) as needed."""
    size = min(BATCH, samples)
    epochs = -(-ROUND * size // samples)
    order = torch.cat([draw_order(samples, weights, torch.default_generator) for _ in range(epochs)])
    return list(torch.split(order, size)[:ROUND])


class _Standardise(nn.Module):
    """Standardises rows (m, 8) by the mean and standard deviation of the training split."""

    mean: Tensor
    std: Tensor

    def __init__(self, rows: Tensor):
        super().__init__()
        mean, std = mean_and_std([rows])
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", std.float())

    def forward(self, rows: Tensor) -> Tensor:
        return (rows - self.mean) / self.std


def _build_network(spatial: Tensor, num_classes: int) -> nn.Sequential:
    hidden = (nn.Linear(SPATIAL_DIM, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU())
    return nn.Sequential(_Standardise(spatial), *hidden, nn.Linear(WIDTH, num_classes))


@torch.no_grad()
def _evaluate(model: nn.Module, spatial: Tensor, label: Tensor) -> Metrics:
    logits = model(spatial)
    return compute_metrics(label, logits.argmax(1), logits.shape[1])


def _summary(metrics: Metrics) -> dict[str, Any]:
    """The metrics of a baseline that the results file contains."""
    return {
        "accuracy": metrics.accuracy,
        "mpca": metrics.mpca,
        "per_class_accuracy": metrics.per_class_accuracy,
        "classes_present": metrics.classes_present,
    }
