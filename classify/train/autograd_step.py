"""One training step by PyTorch's autograd: forward, loss, backward, clip, Adam.

This is the plain form of a step. `head_step.py` computes the same for heads on cached features, faster.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam

from classify.data.batches import PairBatch
from classify.distributed import all_gather_features, sync_gradients
from classify.model.head import Stage2Model
from classify.model.losses import Objective
from classify.train.learning_rate import param_groups
from configs.resnet_stage2_config import ResNetStage2Config


class AutogradStep:
    """Training steps of a whole model, backbone and head, with its optimizer state.

    With `amp` the backbone computes in bfloat16, or in float16 with a scaled loss on a GPU without bfloat16; head and
    loss stay in float32.

    With `accumulate` K the persons of a batch go through the backbone in K parts. The loss has terms of all samples of
    the batch, so averaging the parts' losses would give another gradient. Instead the parts' features are computed
    without a graph, head and loss give the gradient of the features, and each part is forwarded again to backpropagate
    its share (gradient caching: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
    2021).
    """

    def __init__(self, model: Stage2Model, objective: Objective, config: ResNetStage2Config) -> None:
        self._model = model
        self._objective = objective
        self._config = config
        self._parameters = model.trainable_parameters()
        device = self._parameters[0].device
        self._type = _amp_type(device) if config.amp else torch.float32
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._type == torch.float16)
        fused = device.type in ("cpu", "cuda")
        groups = param_groups(model, config)
        self.optimizer = Adam(groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused)

    def __call__(self, batch: PairBatch, rate: float) -> Tensor:
        """Takes one step at the head's learning rate `rate`; returns the loss before the step, a detached scalar."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        loss = self.backward(batch)
        sync_gradients(self._model.backbone.parameters(), self._model.head.parameters())
        self._scaler.unscale_(self.optimizer)
        clip_grad_norm_(self._parameters, self._config.grad_clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return loss

    def step_alone(self, batches: Sequence[PairBatch], rate: float) -> Tensor:
        """The step as the training loop calls it for a run that trains alone: one batch -> (1,) loss."""
        (batch,) = batches
        return self(batch, rate).unsqueeze(0)

    def backward(self, batch: PairBatch) -> Tensor:
        """Computes the gradients of a batch into the parameters; returns the loss, a detached scalar."""
        self.optimizer.zero_grad()
        if self._config.accumulate == 1:
            return self._head_backward(self._features(batch.persons), batch)
        # a rank without persons has one empty part: the other ranks wait for its gradients, which are zeros
        parts = torch.tensor_split(batch.persons, max(1, min(self._config.accumulate, len(batch.persons))))
        with torch.no_grad():
            features = torch.cat([self._features(part) for part in parts])
        features.requires_grad_(any(parameter.requires_grad for parameter in self._model.backbone.parameters()))
        loss = self._head_backward(features, batch)
        if features.grad is None:
            return loss
        for part, gradient in zip(parts, torch.split(features.grad, [len(part) for part in parts]), strict=True):
            self._features(part).backward(gradient)  # type: ignore[no-untyped-call]
        return loss

    def _features(self, persons: Tensor) -> Tensor:
        """The backbone's output (P, D) float32 for this rank's share of a batch's persons."""
        with torch.autocast(persons.device.type, self._type, enabled=self._type != torch.float32):
            features: Tensor = self._model.backbone(persons)
        return features.float() if self._config.amp else features

    def _head_backward(self, features: Tensor, batch: PairBatch) -> Tensor:
        logits = self._model.head(all_gather_features(features, batch.num_persons), batch.a, batch.b, batch.spatial)
        loss = self._objective.loss(logits, batch.label)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """See `OptimizerState`."""
        return {"adam": self.optimizer.state_dict(), "scaler": self._scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `OptimizerState`."""
        self.optimizer.load_state_dict(state["adam"])
        self._scaler.load_state_dict(state["scaler"])


def _amp_type(device: torch.device) -> torch.dtype:
    """bfloat16, which needs no loss scaling; float16 on a GPU that only emulates bfloat16."""
    return torch.float16 if device.type == "cuda" and not torch.cuda.is_bf16_supported(False) else torch.bfloat16
