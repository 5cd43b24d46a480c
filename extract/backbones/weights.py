"""Where a backbone's weights come from, and the checksum by which a store knows them."""

import hashlib
import os
import struct
import warnings
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from pickle import UnpicklingError  # the type of error alone: nothing is unpickled outside torch's safe loader
from typing import Any
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor

from configs.errors import WeightsError
from extract.backbones.hog import HOG, Hog
from extract.backbones.resnet import Backbone

IMAGENET, RANDOM = "imagenet", "random"
NONE = "none"  # of a backbone that has no weights
WITHOUT_FILE = (IMAGENET, RANDOM, NONE)
_UNUSED = ("fc.",)  # the classifier above the pooled layer
_PREFIXES = ("backbone.resnet.", "resnet.", "module.", "backbone.")
_ENUM = {"resnet18": "ResNet18_Weights", "resnet34": "ResNet34_Weights", "resnet50": "ResNet50_Weights"}

State = dict[str, Tensor]


@dataclass(frozen=True)
class LoadedBackbone:
    """A backbone in eval mode with the identity of its weights."""

    backbone: Backbone | Hog
    sha256: str  # of the tensors
    source: str  # for people: "imagenet", "random", "none", or a file's name


def load_backbone(name: str, weights: str) -> LoadedBackbone:
    """The frozen backbone `name` with weights "imagenet", "random" or those of a file; "hog" has none.

    Raises:
        WeightsError: the weights cannot be had, or do not fit; what is wrong is named.
    """
    if name == HOG:
        if weights not in WITHOUT_FILE:
            raise WeightsError(f"{HOG} has no weights that {weights} could hold; leave out --weights")
        return LoadedBackbone(Hog(), state_sha256({}), NONE)
    resnet = load_resnet(name, weights, freeze=True)
    source = weights if weights in (IMAGENET, RANDOM) else Path(weights).name
    return LoadedBackbone(resnet, state_sha256(resnet.resnet.state_dict()), source)


def load_resnet(name: str, weights: str, freeze: bool, moving_norm: bool = False) -> Backbone:
    """The ResNet `name` with weights "imagenet" (torchvision's IMAGENET1K_V1), "random" or those of a file.

    IMAGENET1K_V1 and not V2: V2's training recipe buys ImageNet accuracy at the price of frozen features.
    Random weights are drawn with one fixed seed, so that a store of them serves every run.

    Raises:
        WeightsError: the weights cannot be had, or do not fit; what is wrong is named.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = Backbone(name, freeze, moving_norm)
    if weights == IMAGENET:
        _fit(backbone, _imagenet(name), "torchvision's ImageNet weights")
    elif weights != RANDOM:
        _fit(backbone, backbone_state(Path(weights)), weights)
    return backbone


def state_sha256(state: State) -> str:
    """sha256 over names, shapes and values: the same tensors in another file have the same one."""
    total = hashlib.sha256()
    for key in sorted(state):
        if not key.endswith("num_batches_tracked"):  # counts training steps, changes no output
            tensor = state[key].detach().cpu().contiguous()
            total.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            total.update(tensor.numpy().tobytes())
    return total.hexdigest()


def backbone_state(path: Path) -> State:
    """The backbone's tensors of a file: a torchvision state_dict, or the checkpoint of an end-to-end run.

    The folder of a run stands for its best_model.pth.

    Raises:
        WeightsError: the file is missing, damaged, holds more than tensors and plain values, or holds no backbone.
    """
    path = path / "best_model.pth" if os.path.isdir(path) else path  # noqa: PTH112, which raises on odd names
    try:
        content = read_tensor_file(path)
    except ValueError as error:
        raise WeightsError(f"the weights {path} cannot be loaded ({error}); check --weights") from error
    model = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(model, dict):
        raise WeightsError(f"{path} holds a {type(model).__name__} instead of a state_dict; save model.state_dict()")
    tensors = {_plain(str(key)): value for key, value in model.items() if isinstance(value, Tensor)}
    if "conv1.weight" not in tensors:
        raise WeightsError(
            f"{path} holds no ResNet backbone (a head-only run's checkpoint has none); give a torchvision "
            f"state_dict or the best_model.pth of an end-to-end run"
        )
    return tensors


def _plain(key: str) -> str:
    for prefix in _PREFIXES:
        if key.startswith(prefix):
            return key.removeprefix(prefix)
    return key


def _fit(backbone: Backbone, state: State, source: str) -> None:
    """Loads `state` into the ResNet, every tensor accounted for. Raises WeightsError, the tensor named."""
    wanted: dict[str, Any] = backbone.resnet.state_dict()
    given = {key: value for key, value in state.items() if not key.startswith((*_UNUSED, "head."))}
    for key, tensor in wanted.items():
        if key.endswith("num_batches_tracked"):
            given.setdefault(key, tensor)
        if key not in given:
            raise WeightsError(f"{source} lacks {key}, so it is no {backbone.name}; check --backbone and --weights")
        if given[key].shape != tensor.shape:
            raise WeightsError(
                f"{source} has {key} of shape {tuple(given[key].shape)}, {backbone.name} needs {tuple(tensor.shape)}; "
                f"check --backbone and --weights"
            )
        if given[key].layout != torch.strided or given[key].device.type != "cpu":
            raise WeightsError(f"{source} has {key} as a tensor that is not stored plainly; save dense tensors")
        if given[key].dtype != tensor.dtype:
            raise WeightsError(f"{source} has {key} of type {given[key].dtype}, needed is {tensor.dtype}; convert it")
        if tensor.is_floating_point() and not given[key].isfinite().all():
            raise WeightsError(f"{source} has NaN or infinite values in {key}; use other weights")
    unknown = sorted(set(given) - set(wanted))
    if unknown:
        raise WeightsError(f"{source} has {unknown[0]}, which {backbone.name} has not; check --backbone and --weights")
    backbone.resnet.load_state_dict(given)


def _imagenet(name: str) -> State:
    """torchvision's own weights, from its cache or its server."""
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


# what torch's loader raises on damaged and hostile files, found by fuzzing it
_DAMAGE: tuple[type[Exception], ...] = (
    *(OSError, RuntimeError, EOFError, LookupError, TypeError, AttributeError, ValueError, ArithmeticError),
    *(AssertionError, ImportError, MemoryError, BufferError, UnpicklingError, struct.error),
)


def read_tensor_file(path: Path) -> Any:
    """The tensors and plain values of a torch.save file, on the CPU.

    Raises:
        ValueError: the file is missing, damaged, or holds anything but tensors and plain values.
    """
    try:
        with warnings.catch_warnings():  # torch's advice about unusual files; what matters is whether they load
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ValueError("there is no such file") from error
    except _DAMAGE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise ValueError(reason) from error
