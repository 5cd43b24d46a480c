"""One step of Adam on a flat buffer, and the masking of a gradient, by PyTorch's fastest operators.

Some of these operators are not public. They are used only if they exist and compute what the public ones do; the public
ones take their place otherwise.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam

_BETAS, _EPS = (0.9, 0.999), 1e-8
_COUNT = 8  # values of the comparison


def adam_step(
    value: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, steps: Tensor, *, rate: float, weight_decay: float
) -> None:
    """Takes one step of Adam with L2 regularisation, as torch.optim.Adam does; changes all arguments but `gradient`.

    Args:
        value, gradient, mean, square: (N,) parameters, their gradient, and its moments.
        steps: () float32, the steps taken so far.
    """
    step = _fused if has_fused_adam() else _public
    step(value, gradient, mean, square, steps, rate, weight_decay)


def mask_where_zero(gradient: Tensor, activation: Tensor) -> Tensor:
    """The gradient of ReLU's input: `gradient` where the output `activation` is above 0, else 0."""
    operator: Any = getattr(torch.ops.aten, "threshold_backward", None)  # the fastest operator for it
    if operator is None:
        return torch.where(activation > 0, gradient, 0.0)
    masked: Tensor = operator(gradient, activation, 0)
    return masked


@cache
def has_fused_adam() -> bool:
    """Whether the operator behind torch.optim.Adam(fused=True) exists and computes what the public function does."""
    results = []
    for step in (_fused, _public):
        numbers = torch.linspace(-1, 1, _COUNT)
        value, mean, square, steps = numbers.clone(), numbers * 0.1, numbers.square() * 0.1, torch.tensor(3.0)
        try:
            step(value, numbers.flip(0), mean, square, steps, 0.1, 0.01)
        except (AttributeError, TypeError, ValueError, RuntimeError):  # another version of torch
            return False
        results.append(torch.cat([value, mean, square, steps.view(1)]))
    fused, public = results
    return torch.allclose(fused, public, atol=1e-6)


def _fused(
    value: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, steps: Tensor, rate: float, weight_decay: float
) -> None:
    """What torch.optim.Adam(fused=True) calls, without its preparation, which takes 0.1 ms."""
    operator: Any = torch._fused_adam_
    steps += 1
    operator(
        [value], [gradient], [mean], [square], [], [steps], lr=rate, beta1=_BETAS[0], beta2=_BETAS[1],
        weight_decay=weight_decay, eps=_EPS, amsgrad=False, maximize=False,
    )  # fmt: skip


def _public(
    value: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, steps: Tensor, rate: float, weight_decay: float
) -> None:
    adam(
        [value], [gradient], [mean], [square], [], [steps], foreach=False, lr=rate, beta1=_BETAS[0], beta2=_BETAS[1],
        weight_decay=weight_decay, eps=_EPS, amsgrad=False, maximize=False,
    )  # fmt: skip
