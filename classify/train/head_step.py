"""The fused training step of heads on cached features: forward, gradients, clipping and Adam written out.

An optimisation of the plain step in `autograd_step.py`, which `--step autograd` uses instead; the tests compare the
two. A head's step is so short that autograd spends most of it on the bookkeeping of some sixty small operators. Here
the gradients go straight to one flat buffer, and the heads of several seeds take their steps together: every matrix
product has one more dimension.

Letters: S heads, B pairs, D features, V visual dimension, L spatial embedding, H hidden units, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from classify.data.batches import PairBatch
from classify.model.head import FusionHead
from classify.model.losses import Objective
from classify.train.adam import adam_step, mask_where_zero
from configs.resnet_stage2_config import ResNetStage2Config

Views = dict[str, Tensor]  # parameter name -> (S, ...) view of a flat buffer

_MOMENTS = ("mean", "square")


class HeadState:
    """Resumable optimizer state of a head: the Adam moments of its parameters and its dropout generator."""

    def __init__(self, head: FusionHead, config: ResNetStage2Config) -> None:
        self.head = head
        self.config = config
        self.generator = torch.Generator(head.project.weight.device).manual_seed(config.seed)
        self.mean = {name: torch.zeros_like(parameter) for name, parameter in head.named_parameters()}
        self.square = {name: torch.zeros_like(parameter) for name, parameter in head.named_parameters()}
        self.steps = 0

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values; see `OptimizerState`."""
        moments = {name: {key: part.clone() for key, part in getattr(self, name).items()} for name in _MOMENTS}
        return moments | {"steps": self.steps, "dropout": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state. Raises KeyError, TypeError, ValueError or RuntimeError if it does not fit."""
        for name in _MOMENTS:
            for key, part in getattr(self, name).items():
                part.copy_(state[name][key])
        self.steps = int(state["steps"])
        self.generator.set_state(state["dropout"])


class HeadStep:
    """Training steps of S heads with the same shapes, the same standardisation and the same number of steps taken.

    Moves the heads' parameters and moments into shared buffers, in which the same parameter of all heads is one
    contiguous block (S, ...) for the batched matrix products; the heads' own tensors become views of them.
    """

    def __init__(self, states: Sequence[HeadState], objective: Objective) -> None:
        self._states = states
        self._objective = objective
        self._head = states[0].head
        self._config = states[0].config
        self._steps = torch.tensor(float(states[0].steps), device=self._head.project.weight.device)
        heads = [dict(state.head.named_parameters()) for state in states]
        self._value, self._weight = _flatten(heads)
        self._mean, means = _flatten([state.mean for state in states])
        self._square, squares = _flatten([state.square for state in states])
        self._flat_gradient = torch.zeros_like(self._value)
        self._gradient = _views(self._flat_gradient, self._weight)
        for row, (state, parameters) in enumerate(zip(states, heads, strict=True)):
            for name, parameter in parameters.items():
                parameter.data = self._weight[name][row]
                state.mean[name], state.square[name] = means[name][row], squares[name][row]

    @torch.inference_mode()
    def __call__(self, batches: Sequence[PairBatch], rate: float) -> Tensor:
        """Takes one step of each head; returns the losses (S,) before the step.

        Args:
            batches: S batches of B pairs; `persons` holds the first person of every pair, then the second ones.
            rate: the learning rate.
        """
        persons, spatial, label = (
            _stack([getattr(batch, name) for batch in batches]) for name in ("persons", "spatial", "label")
        )
        loss = self._backward(persons, spatial, label)
        self._clip()
        buffers = (self._value, self._flat_gradient, self._mean, self._square, self._steps)
        adam_step(*buffers, rate=rate, weight_decay=self._config.weight_decay)
        for state in self._states:
            state.steps += 1
        return loss

    def _clip(self) -> None:
        """Clips as torch.nn.utils.clip_grad_norm_ does, each head by its own gradient norm."""
        if len(self._states) == 1:
            norm = torch.linalg.vector_norm(self._flat_gradient)
            self._flat_gradient.mul_((self._config.grad_clip / (norm + 1e-6)).clamp_max_(1.0))
            return
        parts = [part.flatten(1) for part in self._gradient.values()]
        norm = torch.stack([torch.linalg.vector_norm(part, dim=1) for part in parts]).norm(dim=0)  # (S,)
        scale = (self._config.grad_clip / (norm + 1e-6)).clamp_max_(1.0).unsqueeze(1)
        for part in parts:
            part.mul_(scale)

    def _backward(self, persons: Tensor, spatial: Tensor, label: Tensor) -> Tensor:
        """Computes the gradients of persons (S, 2B, D), spatial (S, B, 8) and label (S, B); returns losses (S,)."""
        head = self._head
        x = torch.addcmul(head.visual_shift, persons, head.visual_scale)
        scaled = torch.addcmul(head.spatial_shift, spatial, head.spatial_scale)
        projected = self._linear("project", x).relu_()  # (S, 2B, V)
        embedded = self._linear("place", scaled).relu_()  # (S, B, L)
        paired = self._linear("interact", projected) if head.fusion == "bilinear" else projected
        va, vb = paired.chunk(2, dim=1)  # (S, B, V) each
        fused = _fuse(head.fusion, va, vb, embedded)
        hidden = self._linear("relation", fused).relu_()  # (S, B, H)
        keep = 1.0 - head.dropout.p
        if keep < 1.0:
            hidden = (hidden * self._dropout_mask(hidden.shape[1], hidden.shape[2])).mul_(1.0 / keep)
        logits = self._linear("classify", hidden)

        loss, d_logits = self._objective.loss_and_gradient(logits, label)
        d_hidden = self._linear_backward("classify", hidden, d_logits).mul_(1.0 / keep)
        d_fused = self._linear_backward("relation", fused, mask_where_zero(d_hidden, hidden))
        d_paired, d_embedded = _fuse_backward(head.fusion, va, vb, d_fused)
        if head.fusion == "bilinear":
            d_paired = self._linear_backward("interact", projected, d_paired)
        self._linear_backward("place", scaled, mask_where_zero(d_embedded, embedded), inputs=False)
        self._linear_backward("project", x, mask_where_zero(d_paired, projected), inputs=False)
        return loss

    def _linear(self, name: str, x: Tensor) -> Tensor:
        """Applies the layer `name` of each head: x (S, B, in) -> (S, B, out)."""
        weight, bias = self._weight[f"{name}.weight"], self._weight[f"{name}.bias"]
        return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))

    def _linear_backward(self, name: str, x: Tensor, d_out: Tensor, inputs: bool = True) -> Tensor:
        """Computes a layer's gradients from its input x and d_out (S, B, out); returns that of x if `inputs`."""
        torch.bmm(d_out.transpose(1, 2), x, out=self._gradient[f"{name}.weight"])
        torch.sum(d_out, dim=1, out=self._gradient[f"{name}.bias"])
        return torch.bmm(d_out, self._weight[f"{name}.weight"]) if inputs else d_out

    def _dropout_mask(self, pairs: int, units: int) -> Tensor:
        """(S, pairs, units) bool, true where a unit is kept; 16 random bits a unit from each head's own generator.

        Drawing random numbers in [0, 1) with PyTorch takes 4 times as long.
        """
        count, device = pairs * units, self._value.device
        bits = [
            torch.empty(-(-count // 4), dtype=torch.int64, device=device).random_(-(2**63), None, generator=s.generator)
            for s in self._states
        ]
        numbers = _stack(bits).view(torch.int16)[:, :count].view(len(bits), pairs, units)
        return numbers >= round(self._head.dropout.p * 2**16) - 2**15


def _fuse(fusion: str, va: Tensor, vb: Tensor, embedded: Tensor) -> Tensor:
    """The fusion of `FusionHead`, with a dimension for the heads."""
    if fusion == "bilinear":
        return torch.cat((va * vb, embedded), dim=2)
    if fusion == "add":
        return va + vb + embedded
    return torch.cat((va + vb, (va - vb).abs_(), embedded), dim=2)


def _fuse_backward(fusion: str, va: Tensor, vb: Tensor, d_fused: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the projected persons (S, 2B, V) and of the spatial embedding (S, B, L)."""
    if fusion == "add":
        return torch.cat((d_fused, d_fused), dim=1), d_fused
    width = va.shape[2]
    d_sum = d_fused[..., :width]
    if fusion == "bilinear":
        return torch.cat((d_sum * vb, d_sum * va), dim=1), d_fused[..., width:]
    d_difference = d_fused[..., width : 2 * width] * (va - vb).sign_()
    return torch.cat((d_sum + d_difference, d_sum - d_difference), dim=1), d_fused[..., 2 * width :]


def _stack(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts) if len(parts) > 1 else parts[0].unsqueeze(0)


def _flatten(heads: Sequence[Mapping[str, Tensor]]) -> tuple[Tensor, Views]:
    """Copies the tensors of S heads into one flat buffer; returns it and its views (S, ...) by name."""
    parts = {name: torch.stack([head[name].detach() for head in heads]) for name in heads[0]}
    flat = torch.cat([part.reshape(-1) for part in parts.values()])
    return flat, _views(flat, parts)


def _views(flat: Tensor, like: Views) -> Views:
    pieces = torch.split(flat, [part.numel() for part in like.values()])
    return {name: piece.view(part.shape) for piece, (name, part) in zip(pieces, like.items(), strict=True)}
