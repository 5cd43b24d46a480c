"""Checkpoints: tensors and plain Python values in one file, written atomically and fully checked when loaded."""

import io
import struct
import zipfile
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from classify.model.head import Stage2Model, build_head
from configs.errors import CheckpointError, Stage2Error
from configs.read_file import TENSOR_BYTES, read_file
from configs.resnet_stage2_config import ResNetStage2Config
from configs.schema import Schema, check_document
from extract.backbones.tensor_file import parse_tensor_file
from store.files import publish
from store.format.int8_record import Int8Record

FORMAT = 1
CACHED, END_TO_END = "cached", "end_to_end"
State = dict[str, Tensor]

# zipfile raises these on damaged archives, and parse_tensor_file on files that are not checkpoints
_BAD_ARCHIVE = (zipfile.BadZipFile, RuntimeError, ValueError, EOFError, LookupError, OverflowError, struct.error)

_FIELDS: dict[str, Schema] = {
    "format": int,
    "kind": str,
    "config": dict,
    "classes": [str],
    "feature_dim": int,
    "backbone": {str: (str, int, float, bool, None)},
    "store_fingerprint": str,
    "class_weight": [float],
    "data": {str: str},
    "features": {"precision?": str, "activation_ranges?": {str: [float]}, "int8?": dict},
    "model": dict,
    "epoch": int,
    "metrics": dict,
}
_RESUME_FIELDS: dict[str, Schema] = {"optimizer": dict, "history": list, "random": dict}


@dataclass(frozen=True)
class RunInfo:
    """The description of a run that each of its checkpoints contains."""

    kind: str  # CACHED or END_TO_END
    config: ResNetStage2Config
    feature_dim: int  # D, of the backbone's output
    backbone: dict[str, Any]  # recipe fields that identify the backbone, e.g. its name and the sha256 of its weights
    store_fingerprint: str  # of the store that a cached run was trained on; "" for end-to-end runs
    class_weight: tuple[float, ...]  # (C,) of the loss
    data: dict[str, str] = field(default_factory=dict)  # of an end-to-end run, see `classify.data.identity`
    # of a cached run whose features are not float32: how they were forwarded and how far they are from float32
    features: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint."""

    info: RunInfo
    model: State  # "head.*", and in an end-to-end run "backbone.*"
    epoch: int
    metrics: dict[str, Any]  # of the validation split after that epoch
    extra: dict[str, Any]  # last.pth only: optimizer state, history and random number generators, for resuming


def save_checkpoint(path: Path, info: RunInfo, model: nn.Module, record: dict[str, Any], **extra: Any) -> None:
    """Atomically writes a checkpoint of `model` after the epoch of `record` (plain values).

    Raises:
        StorageError: the file system refuses; an existing file is kept.
    """
    content = {
        "format": FORMAT,
        "kind": info.kind,
        "config": info.config.to_dict(),
        "classes": list(info.config.class_names),
        "feature_dim": info.feature_dim,
        "backbone": info.backbone,
        "store_fingerprint": info.store_fingerprint,
        "class_weight": list(info.class_weight),
        "data": info.data,
        "model": {key: tensor.detach().cpu().clone() for key, tensor in model.state_dict().items()},
        "epoch": record["epoch"],
        "metrics": record,
    }
    if info.features:
        content["features"] = info.features
    buffer = io.BytesIO()
    torch.save(content | extra, buffer)
    publish(path, buffer.getvalue())


def load_checkpoint(path: Path, resume: bool = False) -> Checkpoint:
    """Loads a checkpoint to the CPU: `best_model.pth`, or with `resume` `last.pth`.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind; the message names the field at fault.
    """
    content = {"data": {}, "features": {}} | _read_content(path)  # not every run has them
    fields = _FIELDS | (_RESUME_FIELDS if resume else {})
    check_document(path, content, fields, CheckpointError, "this is not such a checkpoint")
    unknown = sorted(str(name) for name in set(content) - set(fields))
    if unknown:
        raise CheckpointError(f"{path} has the unexpected field {unknown[0]}; this is not such a checkpoint")
    if content["format"] != FORMAT:
        raise CheckpointError(f"{path}: format is {content['format']}, this version reads {FORMAT}; train again")
    if content["kind"] not in (CACHED, END_TO_END):
        raise CheckpointError(f"{path}: kind is {content['kind']!r}; stage2 did not write this checkpoint")
    _check_state(path, content["model"])
    extra = {name: content[name] for name in _RESUME_FIELDS if resume}
    info = _run_info(path, content)
    _check_head(path, info, substate(content["model"], "head."))
    return Checkpoint(info, content["model"], content["epoch"], content["metrics"], extra)


def is_checkpoint(path: Path) -> bool:
    """Whether the file is a best_model.pth or last.pth of this product that can be loaded."""
    try:
        load_checkpoint(path, resume=path.name.startswith("last"))
    except CheckpointError:
        return False
    return True


def load_state(module: nn.Module, state: State, source: str) -> None:
    """Loads `state` into `module`; names, shapes and dtypes must all match.

    Raises:
        CheckpointError: a tensor is missing, unexpected or does not fit; the message names it and `source`.
    """
    _check_fit(module.state_dict(), state, source)
    module.load_state_dict(state)


def _check_fit(expected: dict[str, Any], state: State, source: str) -> None:
    """Raises CheckpointError unless `state` has the names, shapes and dtypes of `expected`."""
    for key in sorted(set(expected) ^ set(state)):
        problem = "lacks" if key in expected else "has the unexpected tensor"
        raise CheckpointError(f"{source} {problem} {key}; it belongs to another model")
    for key, tensor in expected.items():
        if state[key].shape != tensor.shape or state[key].dtype != tensor.dtype:
            raise CheckpointError(
                f"{source}: {key} is {_describe(state[key])}, the model needs {_describe(tensor)}; "
                f"it belongs to another model"
            )


def substate(state: State, prefix: str) -> State:
    """The tensors whose names start with `prefix` ("head." or "backbone."), named without it."""
    return {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}


def build_model(checkpoint: Checkpoint, backbone: nn.Module, source: str = "the checkpoint") -> Stage2Model:
    """The model of a checkpoint in evaluation mode, on `backbone`: the identity for features, or one for crops.

    The checkpoint of an end-to-end run contains the backbone's weights; that of a cached run leaves them unchanged.

    Raises:
        CheckpointError: the tensors do not fit.
    """
    model = Stage2Model(backbone, build_head(checkpoint.info.config, checkpoint.info.feature_dim))
    if checkpoint.info.kind == END_TO_END and not isinstance(backbone, nn.Identity):
        load_state(model, checkpoint.model, source)
    else:
        load_state(model.head, substate(checkpoint.model, "head."), source)
    return model.eval()


def _read_content(path: Path) -> dict[str, Any]:
    try:
        data = read_file(path, max_bytes=TENSOR_BYTES, follow_links=False)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); check the run folder") from error
    try:
        _check_checksums(path, data)
        content = parse_tensor_file(data)
    except _BAD_ARCHIVE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise CheckpointError(f"{path} is damaged or not a checkpoint ({reason}); use another one") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} contains a {type(content).__name__}; this is not a checkpoint")
    return content


def _check_checksums(path: Path, data: bytes) -> None:
    """Checks the checksums of the archive's members, which torch.load does not do; decompresses nothing."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise CheckpointError(f"{path} is compressed; stage2 does not write compressed checkpoints")
        if sum(entry.file_size for entry in archive.infolist()) > len(data):
            raise CheckpointError(f"{path} declares more data than it has bytes; use another checkpoint")
        damaged = archive.testzip()
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged: {damaged} does not match its checksum; use another checkpoint")


def _check_state(path: Path, state: dict[Any, Any]) -> None:
    for key, tensor in state.items():
        if not isinstance(key, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: model.{key} is not a tensor; stage2 did not write this checkpoint")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise CheckpointError(
                f"{path}: model.{key} is not a dense CPU tensor; stage2 did not write this checkpoint"
            )
        size = tensor.numel() * tensor.element_size()
        if tensor.untyped_storage().nbytes() != size:  # expanded, or a part of another tensor
            raise CheckpointError(f"{path}: model.{key} does not store its own values; use another checkpoint")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{path}: model.{key} has NaN or infinite values; use another checkpoint")


def _check_head(path: Path, info: RunInfo, state: State) -> None:
    """Compares the declared sizes with the stored tensors, before a head of these sizes is built.

    Raises:
        CheckpointError: they differ; the message names the field or the tensor.
    """
    stored = state.get("visual_shift", torch.empty(0)).numel()
    if stored != info.feature_dim:
        raise CheckpointError(
            f"{path}: feature_dim is {info.feature_dim}, but head.visual_shift has {stored} values; use another one"
        )
    with torch.device("meta"):  # takes no memory
        head = build_head(info.config, info.feature_dim)
    _check_fit(head.state_dict(prefix="head."), {f"head.{key}": tensor for key, tensor in state.items()}, str(path))


def _run_info(path: Path, content: dict[str, Any]) -> RunInfo:
    try:
        config = ResNetStage2Config.from_dict(content["config"])
    except (Stage2Error, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: config is not usable ({error}); use another checkpoint") from error
    if content["classes"] != list(config.class_names):
        raise CheckpointError(f"{path}: classes and config disagree; use another checkpoint")
    if content["feature_dim"] < 1:
        raise CheckpointError(f"{path}: feature_dim is {content['feature_dim']}; use another checkpoint")
    _check_features(path, content["features"], content["feature_dim"])
    weight = content["class_weight"]
    if len(weight) != len(config.classes) or not all(type(value) is float and 0 < value < inf for value in weight):
        raise CheckpointError(f"{path}: class_weight does not fit the classes; use another checkpoint")
    return RunInfo(
        kind=content["kind"],
        config=config,
        feature_dim=content["feature_dim"],
        backbone=content["backbone"],
        store_fingerprint=content["store_fingerprint"],
        class_weight=tuple(weight),
        data=content["data"],
        features=content["features"],
    )


def _check_features(path: Path, features: dict[str, Any], feature_dim: int) -> None:
    try:
        if "int8" in features and Int8Record.from_dict(features["int8"]).samples()[0].shape[1] != feature_dim:
            raise ValueError(f"its features do not have {feature_dim} values")
    except ValueError as error:
        raise CheckpointError(f"{path}: features.int8 cannot be used ({error}); use another checkpoint") from error


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
