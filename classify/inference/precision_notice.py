"""Says how far a command's features are from those that a head was trained on, if their precision differs."""

import logging
from typing import Any

import torch

from classify.model.checkpoint import Checkpoint, build_model
from classify.model.head import FusionHead
from store.format.int8_record import Int8Record
from store.format.manifest import Manifest
from store.format.recipe import INT8

FLOAT32 = "float32"
_log = logging.getLogger("stage2")


def kept_precision(manifest: Manifest) -> dict[str, Any]:
    """What the checkpoints of a run keep about its features if they were not forwarded in float32, as plain values."""
    recipe = manifest.recipe
    if recipe.precision == FLOAT32:
        return {}
    values: dict[str, Any] = {"precision": recipe.precision}
    if recipe.precision == INT8:
        values["activation_ranges"] = recipe.activation_ranges
    if manifest.int8 is not None:
        values["int8"] = manifest.int8.to_dict()
    return values


def log_precision(checkpoint: Checkpoint, precision: str = FLOAT32) -> None:
    """Logs a notice if the run was trained on features of another precision than `precision`, which is used now."""
    text = precision_notice(checkpoint, precision)
    if text:
        _log.info("%s", text)


def precision_notice(checkpoint: Checkpoint, precision: str) -> str:
    """The notice; "" if the run was trained on features of `precision`, or fine-tuned its backbone in float32."""
    trained = checkpoint.info.features.get("precision", FLOAT32)
    if trained == precision:
        return ""
    text = f"The run was trained on {trained} features; here they are {precision}."
    if INT8 not in checkpoint.info.features:
        return text
    record = Int8Record.from_dict(checkpoint.info.features[INT8])
    head = build_model(checkpoint, torch.nn.Identity()).head
    return f"{text} int8 features {record}. {compare_logits(head, record)}"


@torch.no_grad()
def compare_logits(head: FusionHead, record: Int8Record) -> str:
    """A sentence on the logits of all pairs of the people in `record`, with average spatial features."""
    int8, float32 = (torch.from_numpy(rows) for rows in record.samples())
    a, b = torch.triu_indices(len(int8), len(int8), offset=1)
    if not len(a):
        return ""
    average = torch.where(head.spatial_scale != 0, -head.spatial_shift / head.spatial_scale, 0.0)
    one, two = (head(rows, a, b, average.expand(len(a), -1)) for rows in (int8, float32))
    difference = (one - two).abs()
    changed = int((one.argmax(1) != two.argmax(1)).sum())
    return (
        f"Logits of {len(a)} pairs of them: apart by {float(difference.mean()):.2g} on average and at most "
        f"{float(difference.max()):.2g}, where their standard deviation is {float(two.std()):.2g}; {changed} of the "
        f"{len(a)} predictions change."
    )
