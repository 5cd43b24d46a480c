"""Fixtures of the training tests."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import extract.backbones.folded
from classify.train import adam
from classify.train.adam import has_fused_adam


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Hides PyTorch's private operators from this project; PyTorch itself needs them."""

    def missing(*_: Any) -> None:
        raise AttributeError("module 'torch' has no attribute '_fused_adam_'")

    def hide_operators() -> None:
        monkeypatch.setattr(adam, "_fused", missing)
        monkeypatch.setattr(torch.ops.aten, "threshold_backward", None)
        monkeypatch.setattr(extract.backbones.folded, "can_pack", lambda: False)
        has_fused_adam.cache_clear()
        assert not has_fused_adam()

    yield hide_operators
    has_fused_adam.cache_clear()
