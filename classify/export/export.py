"""A finished run as one file that other programs run, checked against the live model before it is written."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classify.data.batches import PairBatch
from classify.export.classifier import Inputs, PairClassifier
from classify.export.formats import Answer, card_of, check_packages, read_back, to_bytes
from classify.inference.finished_run import load_run_backbone
from classify.model.checkpoint import BEST, build_model, load_checkpoint
from classify.model.head import Stage2Model
from configs.errors import ExportError
from extract.annotations.spatial import spatial_features
from store.files import publish, sha256, translate_os_errors

TOLERANCE = 1e-4  # of log-probabilities, relative to the largest one; see `difference`
PROBES = ((2, 1), (2, 2), (5, 1), (9, 21))  # people and pairs of the random questions
_FLOOR = 1e-30  # probabilities below are equal


def export(run: Path, out: Path, kind: str, weights: str = "") -> dict[str, Any]:
    """Writes the classifier of `run`, backbone and head, to `out`; returns what was written and how exact it is.

    The file's content is read back and asked random questions, and `out` is only touched when it answers them as the
    live model does. It is exported from the CPU, in float32.

    Args:
        kind: "onnx", "torchscript" or "safetensors".
        weights: as for `load_run_backbone`: where the backbone's file lies now, if it moved.

    Raises:
        ConfigError: a package that the format needs is not installed.
        ExportError: the exported model answers otherwise than the live one.
        CheckpointError, WeightsError, MismatchError: the run cannot be opened. StorageError: `out` cannot be written.
    """
    check_packages(kind)
    checkpoint = load_checkpoint(run / BEST)
    model = build_model(checkpoint, load_run_backbone(run, checkpoint, weights).backbone, str(run / BEST))
    classifier = PairClassifier(model.backbone, model.head)
    crop_size = checkpoint.info.config.crop_size
    card = card_of(checkpoint)
    data = to_bytes(kind, classifier, random_inputs(3, 2, crop_size), card)
    worst = check(read_back(kind, data, classifier), model, crop_size)
    with translate_os_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    publish(out, data)
    return {
        "out": str(out),
        "format": kind,
        "bytes": len(data),
        "sha256": sha256(data),
        "difference": worst,
        "tolerance": TOLERANCE,
        "classes": list(checkpoint.info.config.class_names),
        "crop_size": crop_size,
    }


def check(answer: Answer, model: Stage2Model, crop_size: int) -> float:
    """The largest difference between `answer` and the live model on random questions.

    Raises:
        ExportError: it is above TOLERANCE.
    """
    questions = [random_inputs(persons, pairs, crop_size, seed) for seed, (persons, pairs) in enumerate(PROBES)]
    worst = max(difference(answer(inputs), live_answer(model, inputs)) for inputs in questions)
    if not worst <= TOLERANCE:  # NaN is no agreement
        raise ExportError(
            f"the exported model differs from the live one by {worst:.2g}, where {TOLERANCE:g} is allowed; nothing was "
            f"written: try another --format, or another version of its packages"
        )
    return worst


@torch.no_grad()
def live_answer(model: Stage2Model, inputs: Inputs) -> Tensor:
    """(B, C) probabilities as every other command computes them: spatial features by numpy, logits by the model."""
    boxes, a, b = inputs.boxes.numpy(), inputs.a.numpy(), inputs.b.numpy()
    spatial = torch.from_numpy(spatial_features(boxes[a], boxes[b], inputs.size.numpy(), inputs.people.numpy()))
    logits: Tensor = model(PairBatch(inputs.crops, inputs.a, inputs.b, spatial, inputs.a))
    return logits.softmax(1)


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference of log-probabilities (B, C), over the largest log-probability (at least 1).

    Logarithms, because random crops may make a model so certain that all probabilities round to 0 and 1.
    """
    if found.shape != expected.shape:
        return float("inf")
    mine, theirs = (values.double().clamp_min(_FLOOR).log() for values in (found, expected))
    return float((mine - theirs).abs().max() / theirs.abs().max().clamp_min(1))


def random_inputs(persons: int, pairs: int, crop_size: int, seed: int = 0) -> Inputs:
    """A random question: noise for crops, boxes of broken sizes all around the panorama and over its seam."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    def whole(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    first = whole(0, persons, pairs)
    return Inputs(
        crops=whole(0, 256, persons, 3, crop_size, crop_size).to(torch.uint8),
        boxes=torch.cat([uniform(-300, 3800, persons, 1), uniform(0, 300, persons, 1), uniform(5, 250, persons, 2)], 1),
        size=torch.stack([whole(3000, 4000, pairs), whole(400, 600, pairs)], dim=1),
        people=whole(2, 30, pairs),
        a=first,
        b=(first + whole(1, persons, pairs)) % persons,
    )
