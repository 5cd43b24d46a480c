"""The baseline that sees no pixels: a small network on the 8D spatial features alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from classify.baselines import figures
from classify.batches import draw_order, sampling_weights
from classify.head import SPATIAL_DIM, mean_and_std
from classify.losses import Objective
from classify.metrics import Metrics, confusion, metrics_of
from classify.selection import Split
from store.tables import Tables

ROUND = 100  # training steps between two looks at the validation split
ROUNDS, PATIENCE = 20, 5  # at most, and without a better look
BATCH = 256
WIDTH = 64
RATE = 3e-3


def spatial_only(
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
    return figures(_metrics(best, data["test"]))


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
        mpca = _metrics(model, val).mpca
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
def _metrics(model: nn.Module, data: tuple[Tensor, Tensor]) -> Metrics:
    logits = model(data[0])
    return metrics_of(confusion(data[1], logits.argmax(1), logits.shape[1]))
