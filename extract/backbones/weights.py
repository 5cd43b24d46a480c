"""Loads a backbone's weights and computes the checksum that identifies them in a store's recipe."""

import hashlib
import os
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor

from configs.errors import WeightsError
from extract.backbones.hog import HOG, Hog
from extract.backbones.int8_graph import Ranges
from extract.backbones.resnet import Backbone
from extract.backbones.tensor_file import read_tensor_file
from store.format.int8_record import Int8Record

IMAGENET, RANDOM = "imagenet", "random"
NONE = "none"  # the backbone has no weights
WITHOUT_FILE = (IMAGENET, RANDOM, NONE)
_UNUSED = ("fc.", "head.")  # torchvision's classifier, and our head in a checkpoint
_PREFIXES = (
    "backbone.resnet.",
    "resnet.",
    "module.",
    "backbone.",
)  # in checkpoints of this project, of DataParallel and of other projects
_ENUM = {"resnet18": "ResNet18_Weights", "resnet34": "ResNet34_Weights", "resnet50": "ResNet50_Weights"}

State = dict[str, Tensor]


@dataclass(frozen=True)
class LoadedBackbone:
    """A backbone in eval mode and where its weights came from."""

    backbone: Backbone | Hog
    sha256: str  # of the tensors, see `state_sha256`
    source: str  # "imagenet", "random", "none", or the name of a file
    activation_ranges: Ranges = field(default_factory=dict)  # for int8, see `extract.backbones.int8_graph`
    int8: Int8Record | None = None  # how far its int8 features are from float32


def load_backbone(name: str, weights: str) -> LoadedBackbone:
    """Returns the frozen backbone `name` with weights "imagenet", "random" or from a file; "hog" has no weights.

    Raises:
        WeightsError: the weights are not available or do not fit the backbone; the message names the first problem.
    """
    if name == HOG:
        if weights not in WITHOUT_FILE:
            raise WeightsError(f"--weights is {weights}, but the backbone {HOG} has no weights; leave out --weights")
        return LoadedBackbone(Hog(), state_sha256({}), NONE)
    resnet = load_resnet(name, weights, freeze=True)
    source = weights if weights in (IMAGENET, RANDOM) else Path(weights).name
    return LoadedBackbone(resnet, state_sha256(resnet.resnet.state_dict()), source)


def load_resnet(name: str, weights: str, freeze: bool, train_batchnorm: bool = False) -> Backbone:
    """Returns the ResNet `name` with weights "imagenet" (torchvision's IMAGENET1K_V1), "random" or from a file.

    V1 instead of V2, because V2's training recipe improves ImageNet accuracy but makes frozen features worse.
    Random weights always have the same seed, so that each run can use the same store.

    Raises:
        WeightsError: the weights are not available or do not fit the backbone; the message names the first problem.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = Backbone(name, freeze, train_batchnorm)
    if weights == IMAGENET:
        _load_state(backbone, _imagenet_state(name), "torchvision's ImageNet weights")
    elif weights != RANDOM:
        _load_state(backbone, backbone_state(Path(weights)), weights)
    return backbone


def state_sha256(state: State) -> str:
    """Returns the sha256 of names, dtypes, shapes and values; it does not depend on the file format."""
    sha256 = hashlib.sha256()
    for key in sorted(state):
        if not key.endswith("num_batches_tracked"):  # counts training steps; does not affect the output
            tensor = state[key].detach().cpu().contiguous()
            sha256.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            sha256.update(tensor.numpy().tobytes())
    return sha256.hexdigest()


def backbone_state(path: Path) -> State:
    """Reads a backbone's tensors from a torchvision state_dict or the checkpoint of an end-to-end run.

    `path` may be a run's folder; its best_model.pth is read.

    Raises:
        WeightsError: the file is missing or damaged, contains other objects than tensors and plain values, or does not
            contain a backbone.
    """
    in_run_folder = False
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises for some invalid names
        path, in_run_folder = path / "best_model.pth", True
    try:
        content = read_tensor_file(path, follow_links=not in_run_folder)
    except ValueError as error:
        raise WeightsError(f"the weights {path} cannot be loaded ({error}); check --weights") from error
    model = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(model, dict):
        raise WeightsError(f"{path} contains a {type(model).__name__}, not a state_dict; save model.state_dict()")
    tensors = {_strip_prefix(str(key)): value for key, value in model.items() if isinstance(value, Tensor)}
    if "conv1.weight" not in tensors:
        raise WeightsError(
            f"{path} does not contain a ResNet backbone (a head-only run has none); give a torchvision "
            f"state_dict or the best_model.pth of an end-to-end run"
        )
    return tensors


def _strip_prefix(key: str) -> str:
    for prefix in _PREFIXES:
        if key.startswith(prefix):
            return key.removeprefix(prefix)
    return key


def _load_state(backbone: Backbone, state: State, source: str) -> None:
    """Loads `state` into the ResNet. Raises WeightsError for a missing, unknown or unsuitable tensor."""
    expected: dict[str, Any] = backbone.resnet.state_dict()
    given = {key: value for key, value in state.items() if not key.startswith(_UNUSED)}
    for key, tensor in expected.items():
        if key.endswith("num_batches_tracked"):
            given.setdefault(key, tensor)
        if key not in given:
            raise WeightsError(f"{source} lacks {key}, so it is not a {backbone.name}; check --backbone and --weights")
        if given[key].shape != tensor.shape:
            raise WeightsError(
                f"{source} has {key} of shape {tuple(given[key].shape)}, {backbone.name} needs {tuple(tensor.shape)}; "
                f"check --backbone and --weights"
            )
        if given[key].layout != torch.strided or given[key].device.type != "cpu":
            raise WeightsError(f"{source} has {key} as a sparse or meta tensor; save dense CPU tensors")
        if given[key].dtype != tensor.dtype:
            raise WeightsError(f"{source} has {key} of type {given[key].dtype}, expected {tensor.dtype}; convert it")
        if tensor.is_floating_point() and not given[key].isfinite().all():
            raise WeightsError(f"{source} has NaN or infinite values in {key}; use other weights")
    unknown = sorted(set(given) - set(expected))
    if unknown:
        raise WeightsError(f"{source} has {unknown[0]}, but {backbone.name} does not; check --backbone and --weights")
    backbone.resnet.load_state_dict(given)


def _imagenet_state(name: str) -> State:
    """Reads torchvision's ImageNet weights from torch.hub's cache; downloads them first if necessary."""
    url = getattr(torchvision.models, _ENUM[name]).IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rpartition("-")[2], progress=False)
        except (URLError, HTTPException, OSError, RuntimeError) as error:
            raise WeightsError(
                f"the ImageNet weights of {name} cannot be downloaded ({error}); put the file at {path}, or give "
                f"--weights FILE or --weights random"
            ) from error
    return backbone_state(path)
