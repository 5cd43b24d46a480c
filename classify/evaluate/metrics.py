"""Accuracy, MPCA and the confusion matrix of a model on a split."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from classify.data.batches import Source
from classify.distributed import broadcast
from classify.model.head import Stage2Model
from classify.model.losses import Objective
from configs.printable import printable
from store.format.ledger import damage_text


@dataclass(frozen=True)
class Metrics:
    """The metrics of one evaluation; plain Python values."""

    accuracy: float  # correct / all
    mpca: float  # mean per-class accuracy, over the classes present
    per_class_accuracy: list[float | None]  # (C,), None for a class without samples
    confusion_matrix: list[list[int]]  # (C, C), rows: ground truth, columns: prediction

    @property
    def classes_present(self) -> int:
        """The number of classes with samples, over which the MPCA is averaged."""
        return sum(value is not None for value in self.per_class_accuracy)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "accuracy": self.accuracy,
            "mpca": self.mpca,
            "per_class_accuracy": self.per_class_accuracy,
            "confusion_matrix": self.confusion_matrix,
            "classes_present": self.classes_present,
            "classes": len(self.per_class_accuracy),
            "pairs": sum(map(sum, self.confusion_matrix)),
        }


def compute_metrics(label: Tensor, prediction: Tensor, num_classes: int) -> Metrics:
    """The metrics of predictions (m,) int64 for samples with labels (m,) int64, m > 0."""
    counts = torch.bincount(label * num_classes + prediction, minlength=num_classes**2)
    matrix: list[list[int]] = counts.view(num_classes, num_classes).tolist()
    recalls = [row[index] / sum(row) if sum(row) else None for index, row in enumerate(matrix)]
    present = [recall for recall in recalls if recall is not None]
    correct = sum(row[index] for index, row in enumerate(matrix))
    return Metrics(correct / sum(map(sum, matrix)), sum(present) / len(present), recalls, matrix)


@torch.no_grad()
def evaluate(model: Stage2Model, source: Source, objective: Objective, split: str) -> dict[str, Any]:
    """Evaluates a model on all samples of a source: the values of `Metrics.to_dict`, `split` and `loss`.

    The loss is computed over the whole split as one batch, so it does not depend on the batch size. Leaves the model
    in evaluation mode.
    """
    model.eval()
    outputs = [(model(batch), batch.label) for batch in source.epoch()]
    logits = broadcast(torch.cat([logits for logits, _ in outputs]))  # (m, C)
    label = torch.cat([label for _, label in outputs])  # (m,)
    metrics = compute_metrics(label, logits.argmax(1), logits.shape[1])
    return metrics.to_dict() | {"split": split, "loss": float(objective.loss(logits, label))}


def metrics_text(metrics: dict[str, Any]) -> str:
    """The result of `evaluate`, with `class_names` and the ledger `data`, as lines of text."""
    accuracies = ["absent" if value is None else f"{value:.4f}" for value in metrics["per_class_accuracy"]]
    names = map(printable, metrics["class_names"])
    classes = [f"  {name:<20} {value}" for name, value in zip(names, accuracies, strict=True)]
    present = f"over {metrics['classes_present']} of {len(classes)} classes"
    summary = f"accuracy {metrics['accuracy']:.4f}, MPCA {metrics['mpca']:.4f} ({present})"
    lines = [f"{metrics['split']}: {metrics['pairs']:,} pairs, {summary}", *classes, damage_text(metrics["data"])]
    return "\n".join(filter(None, lines))
