"""Metrics as text."""

from typing import Any


def metrics_text(found: dict[str, Any]) -> str:
    """The figures of `classify.evaluate.evaluate` of a finished run in lines for people."""
    shares = ["absent" if share is None else f"{share:.4f}" for share in found["per_class_accuracy"]]
    classes = [f"  {name:<20} {share}" for name, share in zip(found["class_names"], shares, strict=True)]
    present = f"over {found['classes_present']} of {len(classes)} classes"
    figures = f"accuracy {found['accuracy']:.4f}, MPCA {found['mpca']:.4f} ({present})"
    head = f"{found['split']}: {found['pairs']:,} pairs, {figures}"
    return "\n".join([head, *classes])
