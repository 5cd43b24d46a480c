"""The export formats: serializes the classifier to the content of a file, and loads such content."""

import io
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from classify.export.classifier import ClassifierInputs, PairClassifier
from classify.inference.finished_run import trained_backbone
from classify.model.checkpoint import Checkpoint, load_state
from classify.model.head import build_head
from classify.report.results import package_versions
from configs.errors import ConfigError, ExportError
from configs.resnet_stage2_config import ResNetStage2Config
from configs.settings import MACHINE, names_with_role
from extract.backbones.hog import HOG, Hog
from extract.backbones.resnet import Backbone

ONNX, TORCHSCRIPT, SAFETENSORS = "onnx", "torchscript", "safetensors"
OPSET = 17
_PACKAGES = {ONNX: ("onnx", "onnxruntime"), TORCHSCRIPT: (), SAFETENSORS: ("safetensors",)}
_METADATA_FILE = "stage2.json"  # in a TorchScript archive
_PAIR_INPUTS = ("size", "people", "a", "b")  # have one row per pair; the other inputs have one row per person

Metadata = dict[str, str]  # name -> JSON text
Predictor = Callable[[ClassifierInputs], Tensor]  # -> probabilities (B, C)
INPUTS = {
    "crops": "(P, 3, S, S) uint8 RGB, cut from the frame by the recipe's padding, box_rule and interpolation",
    "boxes": "(P, 4) float32, x y width height in pixels of the frame",
    "size": "(B, 2) int64, width and height in pixels of the pair's frame",
    "people": "(B,) int64, number of people in the pair's frame",
    "a": "(B,) int64, row of the pair's first person",
    "b": "(B,) int64, row of the pair's second person",
}


def model_metadata(checkpoint: Checkpoint) -> Metadata:
    """The metadata of an exported file: classes in the order of the probabilities, crop_size, recipe, inputs, ..."""
    config = checkpoint.info.config
    machine = names_with_role(ResNetStage2Config, MACHINE)
    settings = {name: value for name, value in config.to_dict().items() if name not in machine}
    values = {
        "classes": list(config.class_names),
        "crop_size": config.crop_size,
        "recipe": trained_backbone(checkpoint),
        "inputs": INPUTS,
        "output": "probabilities (B, C) float32",
        "mode": checkpoint.info.kind,
        "config": settings,
        "versions": package_versions(),
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}


def config_from_metadata(metadata: Metadata | None) -> ResNetStage2Config:
    """The run's configuration from a file's metadata, with defaults for the settings that depend on the machine.

    Raises:
        ExportError: there is no metadata, or stage2 did not write it.
    """
    try:
        return ResNetStage2Config.from_dict(json.loads((metadata or {})["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(f"the file has no usable settings of its model ({error!r}); export the run again") from error


def check_packages(kind: str) -> None:
    """Raises ConfigError, which says what to install, if a package that the format needs is missing."""
    for package in _PACKAGES[kind]:
        try:
            import_module(package)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"--format {kind} needs {package}, which is not installed; pip install 'stage2[{kind}]'"
            ) from error


def serialize(kind: str, model: PairClassifier, example: ClassifierInputs, metadata: Metadata) -> bytes:
    """The content of a file in format `kind`.

    Args:
        example: inputs with at least two people and two pairs, for tracing; their crop size becomes fixed.

    Raises:
        ExportError: this version of torch cannot write the format.
    """
    if kind == SAFETENSORS:
        return _to_safetensors(model, metadata)
    try:
        return _to_onnx(model, example, metadata) if kind == ONNX else _to_torchscript(model, example, metadata)
    except RuntimeError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise ExportError(
            f"torch {torch.__version__} cannot write {kind} ({reason}); try another --format or version"
        ) from error


def deserialize(kind: str, data: bytes, model: PairClassifier) -> Predictor:
    """Loads the content of a file on the CPU.

    Raises:
        ExportError: the tensors of a safetensors file are not bit-identical to those of `model`.
    """
    if kind == ONNX:
        return _onnx_predictor(data)
    if kind == TORCHSCRIPT:
        with _known_deprecations():
            # safe: this process serialized `data`; loading a TorchScript file from elsewhere runs its code
            script = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
        return lambda inputs: script(*inputs)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        path.write_bytes(data)
        loaded = read_safetensors(path)
    _check_equal_tensors(loaded, model)
    return lambda inputs: loaded(*inputs)


def read_safetensors(path: Path) -> PairClassifier:
    """The classifier in an exported safetensors file.

    Raises:
        CheckpointError: the tensors do not fit. ExportError, ConfigError: the settings in the file are not usable.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        config = config_from_metadata(file.metadata())
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - `file` is not a mapping
    backbone = Hog() if config.backbone_name == HOG else Backbone(config.backbone_name, freeze=True)
    model = PairClassifier(backbone, build_head(config, backbone.out_dim), config.panorama)
    load_state(model, state, str(path))
    return model


def _to_onnx(model: PairClassifier, example: ClassifierInputs, metadata: Metadata) -> bytes:
    """Uses the TorchScript-based exporter: it needs no package besides torch and exists in every supported version."""
    import onnx

    axes = {name: {0: "pairs" if name in _PAIR_INPUTS else "persons"} for name in ClassifierInputs._fields}
    with TemporaryDirectory() as folder, _known_deprecations():
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            model,
            tuple(example),
            path,
            input_names=list(ClassifierInputs._fields),
            output_names=["probabilities"],
            dynamic_axes=axes | {"probabilities": {0: "pairs"}},
            opset_version=OPSET,
            dynamo=False,
        )
        graph = onnx.load(path)
    onnx.helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph)
    content: bytes = graph.SerializeToString()
    return content


def _onnx_predictor(data: bytes) -> Predictor:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def predict(inputs: ClassifierInputs) -> Tensor:
        feed = {name: tensor.numpy() for name, tensor in inputs._asdict().items()}
        return torch.from_numpy(session.run(None, feed)[0])

    return predict


def _to_torchscript(model: PairClassifier, example: ClassifierInputs, metadata: Metadata) -> bytes:
    buffer = io.BytesIO()
    with _known_deprecations():
        traced: Any = torch.jit.trace(model, tuple(example), check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, buffer, _extra_files={_METADATA_FILE: json.dumps(metadata)})
    return buffer.getvalue()


def _to_safetensors(model: PairClassifier, metadata: Metadata) -> bytes:
    from safetensors.torch import save

    content: bytes = save({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, metadata=metadata)
    return content


def _check_equal_tensors(loaded: PairClassifier, model: PairClassifier) -> None:
    actual = loaded.state_dict()  # `load_state` has checked names, shapes and dtypes
    for key, tensor in model.state_dict().items():
        if tensor.numpy().tobytes() != actual[key].numpy().tobytes():  # compares bits: 0.0 == -0.0
            raise ExportError(f"the exported {key} is not the model's; nothing was written")


@contextmanager
def _known_deprecations() -> Iterator[None]:
    """Ignores that torch.jit and the exporter based on it are deprecated: their successors need more packages."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=FutureWarning)
        warnings.simplefilter("ignore", category=DeprecationWarning)
        yield
