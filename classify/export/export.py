"""Exports a finished run to a file for other programs, after checking its output against the model's."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classify.data.batches import PairBatch
from classify.export.classifier import ClassifierInputs, PairClassifier
from classify.export.formats import TORCHSCRIPT, Predictor, check_packages, deserialize, serialize
from classify.export.metadata import Metadata, model_metadata
from classify.inference.finished_run import load_run_backbone
from classify.inference.precision_notice import log_precision
from classify.model.checkpoint import build_model, load_checkpoint
from classify.model.head import Stage2Model
from classify.replacement import find_run
from configs.errors import ExportError
from configs.panorama import AUTO
from extract.annotations.spatial import spatial_features
from store.files import make_folder, publish, sha256
from store.outputs import claim_file

TOLERANCE = 1e-4  # of log-probabilities, relative to the largest one; see `max_difference`
TEST_SIZES = ((2, 1), (2, 2), (5, 1), (9, 21))  # numbers of people and pairs of the random test inputs
_FLOOR = 1e-30  # smaller probabilities are treated as equal
_TORCHSCRIPT_NOTICE = (
    "TorchScript is deprecated in PyTorch, and the next release of stage2 will not write it; use --format pt2 "
    "(PyTorch) or --format onnx (other runtimes)"
)

_log = logging.getLogger("stage2")

Serialize = Callable[[str, PairClassifier, ClassifierInputs, Metadata], bytes]


def export(
    run: Path, out: Path, kind: str, weights: str = "", *, overwrite: bool = False, serialize: Serialize = serialize
) -> dict[str, Any]:
    """Exports the classifier of the run in folder `run`, backbone and head, in float32 to `out`.

    The serialized model is loaded again and compared with the model on random inputs. `out` is only written if their
    outputs agree.

    Args:
        kind: "onnx", "pt2", "safetensors" or "torchscript", which is deprecated.
        weights: path of the backbone's weights if they have moved; see `load_run_backbone`.
        serialize: converts the classifier to the content of a file.

    Returns:
        A description of the file, with `difference` and `tolerance` of the comparison.

    Raises:
        ConfigError: a package that the format needs is not installed, or `out` may not be written; see `claim_file`.
        ExportError: the exported model's output differs.
        CheckpointError, WeightsError, MismatchError: the run cannot be loaded. StorageError: `out` cannot be written.
    """
    folder = find_run(run)
    claim_file(out, overwrite=overwrite, inputs=folder.files)
    check_packages(kind)
    if kind == TORCHSCRIPT:
        _log.warning(_TORCHSCRIPT_NOTICE)
    best_model = folder.best_model
    checkpoint = load_checkpoint(best_model)
    log_precision(checkpoint)
    model = build_model(checkpoint, load_run_backbone(run, checkpoint, weights).backbone, str(best_model))
    crop_size, panorama = checkpoint.info.config.crop_size, checkpoint.info.config.panorama
    classifier = PairClassifier(model.backbone, model.head, panorama)
    data = serialize(kind, classifier, random_inputs(3, 2, crop_size), model_metadata(checkpoint))
    difference = check_outputs(deserialize(kind, data, classifier), model, crop_size, panorama)
    make_folder(out.parent)
    publish(out, data)
    return {
        "out": str(out),
        "format": kind,
        "bytes": len(data),
        "sha256": sha256(data),
        "difference": difference,
        "tolerance": TOLERANCE,
        "classes": list(checkpoint.info.config.class_names),
        "crop_size": crop_size,
    }


def check_outputs(predictor: Predictor, model: Stage2Model, crop_size: int, panorama: str = AUTO) -> float:
    """The largest difference between the outputs of `predictor` and `model` on random inputs.

    Raises:
        ExportError: it is above TOLERANCE.
    """
    tests = [random_inputs(persons, pairs, crop_size, seed) for seed, (persons, pairs) in enumerate(TEST_SIZES)]
    worst = max(max_difference(predictor(inputs), model_output(model, inputs, panorama)) for inputs in tests)
    if not worst <= TOLERANCE:  # `not` also catches NaN
        raise ExportError(
            f"the exported model differs from the model by {worst:.2g}, more than {TOLERANCE:g}; nothing was written: "
            f"try another --format, or another version of its packages"
        )
    return worst


@torch.no_grad()
def model_output(model: Stage2Model, inputs: ClassifierInputs, panorama: str = AUTO) -> Tensor:
    """(B, C) probabilities as the other commands compute them: spatial features by numpy, logits by the model."""
    boxes, a, b = inputs.boxes.numpy(), inputs.a.numpy(), inputs.b.numpy()
    size, people = inputs.size.numpy(), inputs.people.numpy()
    spatial = torch.from_numpy(spatial_features(boxes[a], boxes[b], size, people, panorama))
    logits: Tensor = model(PairBatch(inputs.crops, inputs.a, inputs.b, spatial, inputs.a))
    return logits.softmax(1)


def max_difference(actual: Tensor, expected: Tensor) -> float:
    """The largest difference of log-probabilities, relative to the largest log-probability (at least 1).

    Logarithms, because a model can be so certain about random crops that all probabilities round to 0 and 1.

    Args:
        actual, expected: (B, C) probabilities.
    """
    if actual.shape != expected.shape:
        return float("inf")
    log_actual, log_expected = (values.double().clamp_min(_FLOOR).log() for values in (actual, expected))
    return float((log_actual - log_expected).abs().max() / log_expected.abs().max().clamp_min(1))


def random_inputs(persons: int, pairs: int, crop_size: int, seed: int = 0) -> ClassifierInputs:
    """Random inputs: noise as crops, and boxes of fractional sizes in panoramas (also across the seam) and photos."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    first = integers(0, persons, pairs)
    return ClassifierInputs(
        crops=integers(0, 256, persons, 3, crop_size, crop_size).to(torch.uint8),
        boxes=torch.cat([uniform(-300, 3800, persons, 1), uniform(0, 300, persons, 1), uniform(5, 250, persons, 2)], 1),
        size=torch.stack([integers(600, 4000, pairs), integers(400, 600, pairs)], dim=1),
        people=integers(2, 30, pairs),
        a=first,
        b=(first + integers(1, persons, pairs)) % persons,
    )
