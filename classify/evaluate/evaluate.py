"""Figures of a model on the samples of a source."""

from typing import Any

import torch

from classify.data.batches import Source
from classify.distributed import from_first
from classify.evaluate.metrics import confusion, metrics_of
from classify.model.head import Stage2Model
from classify.model.losses import Objective


@torch.no_grad()
def evaluate(model: Stage2Model, source: Source, objective: Objective, split: str) -> dict[str, Any]:
    """accuracy, mpca, per_class_accuracy, confusion_matrix, classes_present, classes, pairs, split and loss.

    The loss is that of the whole split as one batch, so it does not depend on the batch size. Leaves the model in
    evaluation mode.
    """
    model.eval()
    answers = [(model(batch), batch.label) for batch in source.epoch()]
    logits = from_first(torch.cat([logits for logits, _ in answers]))  # (m, C)
    label = torch.cat([label for _, label in answers])  # (m,)
    metrics = metrics_of(confusion(label, logits.argmax(1), logits.shape[1]))
    return metrics.to_dict() | {"split": split, "loss": float(objective.loss(logits, label))}
