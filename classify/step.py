"""One training step by autograd: forward, loss, backward, clip, Adam."""

from typing import Any, Protocol

from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam

from classify.batches import PairBatch
from classify.distributed import sum_gradients
from classify.losses import Objective
from classify.model import Stage2Model
from classify.rates import rate_groups
from configs.resnet_stage2_config import ResNetStage2Config


class Moving(Protocol):
    """What training moves beside a model's parameters."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, from which training goes on as if it had not stopped."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the state back. Raises KeyError, TypeError, ValueError or RuntimeError where it does not fit."""


class AutogradStep:
    """Steps of a whole model, backbone and head; the optimizer's state is what is `Moving`."""

    def __init__(self, model: Stage2Model, objective: Objective, config: ResNetStage2Config) -> None:
        self._model = model
        self._objective = objective
        self._clip = config.grad_clip
        self._parameters = model.trainable()
        fused = self._parameters[0].device.type in ("cpu", "cuda")
        groups = rate_groups(model, config)
        self.optimizer = Adam(groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused)

    def __call__(self, batch: PairBatch, rate: float) -> Tensor:
        """Takes one step at the learning rate `rate` of the head; returns the loss before it, a detached scalar."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        loss = self._objective.loss(self._model(batch), batch.label)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        sum_gradients(self._model.backbone.parameters())
        clip_grad_norm_(self._parameters, self._clip)
        self.optimizer.step()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        """See `Moving`."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Moving`."""
        self.optimizer.load_state_dict(state)
