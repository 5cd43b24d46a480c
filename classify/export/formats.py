"""The export formats: serializes the classifier to the content of a file, and loads such content."""

import io
import json
import os
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
from classify.export.metadata import Metadata, config_from_metadata
from classify.model.checkpoint import load_state
from classify.model.head import build_head
from configs.errors import ConfigError, ExportError
from extract.backbones.hog import HOG, Hog
from extract.backbones.resnet import Backbone

ONNX, PT2, TORCHSCRIPT, SAFETENSORS = "onnx", "pt2", "torchscript", "safetensors"
OPSET = 18  # what torch's exporter writes itself; others need a conversion
_PACKAGES = {
    ONNX: ("onnx", "onnxscript", "onnxruntime"),
    PT2: (),
    TORCHSCRIPT: (),
    SAFETENSORS: ("safetensors",),
}
_METADATA_FILE = "stage2.json"  # in a PT2 or TorchScript archive
_PAIR_INPUTS = ("size", "people", "a", "b")  # have one row per pair; the other inputs have one row per person

Predictor = Callable[[ClassifierInputs], Tensor]  # -> probabilities (B, C)


def check_packages(kind: str) -> None:
    """Raises ConfigError, which says what to install, if a package that the format needs is missing."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime would send data about models from its import on
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
    writers = {ONNX: _to_onnx, PT2: _to_pt2, TORCHSCRIPT: _to_torchscript}
    if kind == SAFETENSORS:
        return _to_safetensors(model, metadata)
    try:
        return writers[kind](model, example, metadata)
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
    # safe: this process serialized `data`; loading a PT2 or TorchScript file from elsewhere may run its code
    if kind == ONNX:
        return _onnx_predictor(data)
    if kind == PT2:
        with _expected_warnings():
            loaded: Any = torch.export.load(io.BytesIO(data)).module()
        return lambda inputs: loaded(*inputs)
    if kind == TORCHSCRIPT:
        with _torchscript_is_deprecated():
            script = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
        return lambda inputs: script(*inputs)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        path.write_bytes(data)
        classifier = read_safetensors(path)
    _check_equal_tensors(classifier, model)
    return lambda inputs: classifier(*inputs)


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


def _program(model: PairClassifier, example: ClassifierInputs) -> torch.export.ExportedProgram:
    """The classifier as a graph for any number of people and pairs.

    Gradients are off, because a frozen backbone's own `no_grad` would otherwise become a subgraph that cannot be saved.
    Positions in source files are left out, so the file does not depend on where stage2 is installed.
    """
    persons, pairs = torch.export.Dim("persons"), torch.export.Dim("pairs")
    shapes = {name: {0: pairs if name in _PAIR_INPUTS else persons} for name in ClassifierInputs._fields}
    with torch.no_grad():
        program = torch.export.export(model, tuple(example), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _to_pt2(model: PairClassifier, example: ClassifierInputs, metadata: Metadata) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(_program(model, example), buffer, extra_files={_METADATA_FILE: json.dumps(metadata)})
    return buffer.getvalue()


def _to_onnx(model: PairClassifier, example: ClassifierInputs, metadata: Metadata) -> bytes:
    import onnx

    with _expected_warnings():
        exported: Any = torch.onnx.export(
            _program(model, example),
            input_names=list(ClassifierInputs._fields),
            output_names=["probabilities"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    content = exported.model_proto
    graph = content.graph
    del graph.value_info[:]  # shapes inside the graph, in the exporter's names; runtimes infer them
    for node in graph.node:
        del node.metadata_props[:]  # the exporter's notes on where a node comes from
    for value in [*graph.input, *graph.output]:
        rows = "persons" if value.name in ClassifierInputs._fields and value.name not in _PAIR_INPUTS else "pairs"
        value.type.tensor_type.shape.dim[0].dim_param = rows
    onnx.helper.set_model_props(content, metadata)
    onnx.checker.check_model(content)
    data: bytes = content.SerializeToString(deterministic=True)
    return data


def _onnx_predictor(data: bytes) -> Predictor:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def predict(inputs: ClassifierInputs) -> Tensor:
        feed = {name: tensor.numpy() for name, tensor in inputs._asdict().items()}
        return torch.from_numpy(session.run(None, feed)[0])

    return predict


def _to_torchscript(model: PairClassifier, example: ClassifierInputs, metadata: Metadata) -> bytes:
    buffer = io.BytesIO()
    with _torchscript_is_deprecated():
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
def _torchscript_is_deprecated() -> Iterator[None]:
    """Ignores the warnings of `torch.jit.trace`, `save` and `load`; `export` says that the format is deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=FutureWarning)
        yield


@contextmanager
def _expected_warnings() -> Iterator[None]:
    """Ignores two warnings that torch 2.11 causes itself: its exporter copies an old class, its loader reads bytes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
        warnings.filterwarnings("ignore", message=r"The given buffer is not writable")
        yield
