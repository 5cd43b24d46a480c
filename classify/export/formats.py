"""The classifier as the bytes of a file in each format, and such bytes as a classifier again."""

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

from classify.export.classifier import Inputs, PairClassifier
from classify.inference.finished_run import trained_backbone
from classify.model.checkpoint import Checkpoint, load_state
from classify.model.head import build_head
from classify.report.results import versions
from configs.errors import ConfigError, ExportError
from configs.resnet_stage2_config import ResNetStage2Config
from configs.settings import MACHINE, names_with_role
from extract.backbones.hog import HOG, Hog
from extract.backbones.resnet import Backbone

Card = dict[str, str]
INPUTS = {
    "crops": "(P, 3, S, S) uint8 RGB, cut from the frame by the recipe's padding, box_rule and interpolation",
    "boxes": "(P, 4) float32, x y width height in pixels of the frame",
    "size": "(B, 2) int64, width and height in pixels of the pair's frame",
    "people": "(B,) int64, how many people the pair's frame has",
    "a": "(B,) int64, the row of the pair's one person",
    "b": "(B,) int64, the row of the other",
}


def card_of(checkpoint: Checkpoint) -> Card:
    """JSON texts (a crop size too is one): classes in the order of the probabilities, crop_size, recipe, ..."""
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
        "versions": versions(),
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}


def config_of(card: Card | None) -> ResNetStage2Config:
    """The run's settings out of a card, those of its machine left at their defaults.

    Raises:
        ExportError: there is no card, or it is none of this product.
    """
    try:
        return ResNetStage2Config.from_dict(json.loads((card or {})["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(f"the file says nothing of its model's settings ({error!r}); export the run again") from error


ONNX, TORCHSCRIPT, SAFETENSORS = "onnx", "torchscript", "safetensors"
OPSET = 17
_PACKAGES = {ONNX: ("onnx", "onnxruntime"), TORCHSCRIPT: (), SAFETENSORS: ("safetensors",)}
_CARD = "stage2.json"  # in a TorchScript archive
_PAIRS = ("size", "people", "a", "b")  # inputs with a row for each pair; the others have one for each person

Answer = Callable[[Inputs], Tensor]  # -> probabilities (B, C)


def check_packages(kind: str) -> None:
    """Raises ConfigError, the remedy named, where a package that the format needs is not installed."""
    for package in _PACKAGES[kind]:
        try:
            import_module(package)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"--format {kind} needs {package}, which is not installed; pip install 'stage2[{kind}]'"
            ) from error


def to_bytes(kind: str, model: PairClassifier, example: Inputs, card: Card) -> bytes:
    """The file's content. `example` has at least two people and two pairs, and the crop size that is fixed in it.

    Raises:
        ExportError: this version of torch cannot write the format.
    """
    if kind == SAFETENSORS:
        return _to_safetensors(model, card)
    try:
        return _to_onnx(model, example, card) if kind == ONNX else _to_torchscript(model, example, card)
    except RuntimeError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise ExportError(
            f"torch {torch.__version__} cannot write {kind} ({reason}); try another --format or version"
        ) from error


def read_back(kind: str, data: bytes, model: PairClassifier) -> Answer:
    """What answers out of the file's content alone, on the CPU.

    Raises:
        ExportError: a tensor of a safetensors file is not, bit for bit, that of `model`.
    """
    if kind == ONNX:
        return _onnx_session(data)
    if kind == TORCHSCRIPT:
        with _known_deprecations():
            # out of memory, where this process made it: a TorchScript file from elsewhere would be code
            script = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
        return lambda inputs: script(*inputs)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        path.write_bytes(data)
        again = read_safetensors(path)
    _check_same_tensors(again, model)
    return lambda inputs: again(*inputs)


def read_safetensors(path: Path) -> PairClassifier:
    """The classifier of an exported safetensors file, from nothing but the file.

    Raises:
        CheckpointError: the tensors do not fit. ConfigError: the settings in it are not usable.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        config = config_of(file.metadata())
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    backbone = Hog() if config.backbone_name == HOG else Backbone(config.backbone_name, freeze=True)
    model = PairClassifier(backbone, build_head(config, backbone.out_dim))
    load_state(model, state, str(path))
    return model


def _to_onnx(model: PairClassifier, example: Inputs, card: Card) -> bytes:
    """By the exporter on TorchScript: it needs no package beside torch and has been there in every torch so far."""
    import onnx

    axes = {name: {0: "pairs" if name in _PAIRS else "persons"} for name in Inputs._fields}
    with TemporaryDirectory() as folder, _known_deprecations():
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            model,
            tuple(example),
            path,
            input_names=list(Inputs._fields),
            output_names=["probabilities"],
            dynamic_axes=axes | {"probabilities": {0: "pairs"}},
            opset_version=OPSET,
            dynamo=False,
        )
        graph = onnx.load(path)
    onnx.helper.set_model_props(graph, card)
    onnx.checker.check_model(graph)
    content: bytes = graph.SerializeToString()
    return content


def _onnx_session(data: bytes) -> Answer:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])

    def answer(inputs: Inputs) -> Tensor:
        feed = {name: tensor.numpy() for name, tensor in inputs._asdict().items()}
        return torch.from_numpy(session.run(None, feed)[0])

    return answer


def _to_torchscript(model: PairClassifier, example: Inputs, card: Card) -> bytes:
    buffer = io.BytesIO()
    with _known_deprecations():
        traced: Any = torch.jit.trace(model, tuple(example), check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, buffer, _extra_files={_CARD: json.dumps(card)})
    return buffer.getvalue()


def _to_safetensors(model: PairClassifier, card: Card) -> bytes:
    from safetensors.torch import save

    content: bytes = save({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, metadata=card)
    return content


def _check_same_tensors(again: PairClassifier, model: PairClassifier) -> None:
    old, new = model.state_dict(), again.state_dict()  # of the same names, shapes and types: `restore` saw to that
    for key, tensor in old.items():
        if tensor.numpy().tobytes() != new[key].numpy().tobytes():  # 0.0 == -0.0, so values would not do
            raise ExportError(f"the exported {key} is not the model's; nothing was written")


@contextmanager
def _known_deprecations() -> Iterator[None]:
    """torch.jit and the exporter on it are in maintenance, and say so; what replaces them needs more packages."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=FutureWarning)
        warnings.simplefilter("ignore", category=DeprecationWarning)
        yield
