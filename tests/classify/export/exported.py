"""Runs exported files as their users do."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from classify.export.classifier import ClassifierInputs
from classify.export.formats import read_safetensors


def exported_output(kind: str, path: Path, inputs: ClassifierInputs) -> Tensor:
    """The probabilities that an exported file computes, run as its users run it."""
    if kind == "onnx":
        runtime = pytest.importorskip("onnxruntime")
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        feed = {name: tensor.numpy() for name, tensor in inputs._asdict().items()}
        return torch.from_numpy(session.run(["probabilities"], feed)[0])
    if kind == "pt2":
        with torch_2_11_warns():
            return Tensor(torch.export.load(path).module()(*inputs))
    if kind == "torchscript":
        with warnings.catch_warnings():  # torch.jit is deprecated
            warnings.simplefilter("ignore")
            script: Any = torch.jit.load(path)
            return Tensor(script(*inputs))
    return Tensor(read_safetensors(path)(*inputs))


@contextmanager
def torch_2_11_warns() -> Iterator[None]:
    """Ignores what torch 2.11 says when `torch.export.load` reads tensors from a file."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        yield


def needs(kind: str) -> None:
    """Skips the test if the format's extra is not installed."""
    for package in {"onnx": ("onnx", "onnxscript", "onnxruntime"), "safetensors": ("safetensors",)}.get(kind, ()):
        pytest.importorskip(package, reason=f"the extra {kind} is not installed")
