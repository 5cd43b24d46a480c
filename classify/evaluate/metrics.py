"""Accuracy, MPCA and the confusion matrix."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from classify.data.batches import Source
from classify.distributed import broadcast
from classify.model.head import Stage2Model
from classify.model.losses import Objective


@dataclass(frozen=True)
class Metrics:
    """Figures of one evaluation; plain Python values."""

    accuracy: float  # correct / all
    mpca: float  # mean per-class accuracy over the classes that occur
    per_class_accuracy: list[float | None]  # (C,), None where the class does not occur
    confusion_matrix: list[list[int]]  # (C, C), rows: truth, columns: answer

    @property
    def classes_present(self) -> int:
        """How many classes occur, that is, how many the MPCA is a mean of."""
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


def confusion(label: Tensor, answer: Tensor, num_classes: int) -> Tensor:
    """(C, C) int64 counts on the labels' device, of labels and answers (B,) int64; sum them over batches."""
    return torch.bincount(label * num_classes + answer, minlength=num_classes**2).view(num_classes, num_classes)


def compute_metrics(counts: Tensor) -> Metrics:
    """The figures of a confusion matrix (C, C) with at least one sample; rows are truth."""
    rows: list[list[int]] = counts.tolist()
    recalls = [row[index] / sum(row) if sum(row) else None for index, row in enumerate(rows)]
    present = [recall for recall in recalls if recall is not None]
    correct = sum(row[index] for index, row in enumerate(rows))
    return Metrics(correct / sum(map(sum, rows)), sum(present) / len(present), recalls, rows)


@torch.no_grad()
def evaluate(model: Stage2Model, source: Source, objective: Objective, split: str) -> dict[str, Any]:
    """accuracy, mpca, per_class_accuracy, confusion_matrix, classes_present, classes, pairs, split and loss.

    The loss is that of the whole split as one batch, so it does not depend on the batch size. Leaves the model in
    evaluation mode.
    """
    model.eval()
    answers = [(model(batch), batch.label) for batch in source.epoch()]
    logits = broadcast(torch.cat([logits for logits, _ in answers]))  # (m, C)
    label = torch.cat([label for _, label in answers])  # (m,)
    metrics = compute_metrics(confusion(label, logits.argmax(1), logits.shape[1]))
    return metrics.to_dict() | {"split": split, "loss": float(objective.loss(logits, label))}


def metrics_text(found: dict[str, Any]) -> str:
    """The figures of `classify.evaluate.metrics.evaluate` of a finished run in lines for people."""
    shares = ["absent" if share is None else f"{share:.4f}" for share in found["per_class_accuracy"]]
    classes = [f"  {name:<20} {share}" for name, share in zip(found["class_names"], shares, strict=True)]
    present = f"over {found['classes_present']} of {len(classes)} classes"
    figures = f"accuracy {found['accuracy']:.4f}, MPCA {found['mpca']:.4f} ({present})"
    head = f"{found['split']}: {found['pairs']:,} pairs, {figures}"
    return "\n".join([head, *classes])
