"""The training loss: cross entropy, MPCA regularisation and accuracy regularisation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.resnet_stage2_config import ResNetStage2Config


@dataclass(frozen=True)
class Objective:
    """The loss to minimise: its class weights and the weights of its two regularisation terms."""

    class_weight: Tensor  # (C,) float32, on the device
    mpca_weight: float
    acc_weight: float

    @classmethod
    def from_config(
        cls, config: ResNetStage2Config, class_weight: Sequence[float], device: torch.device
    ) -> "Objective":
        """The objective of a configuration, with class weights (C,) from `class_weights`."""
        return cls(torch.tensor(class_weight, device=device), config.mpca_weight, config.acc_weight)

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss of logits (B, C) and labels (B,) int64; see `stage2_loss`."""
        return stage2_loss(logits, label, self.class_weight, self.mpca_weight, self.acc_weight)

    def loss_and_gradient(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """The losses (S,) of S batches of logits (S, B, C) and labels (S, B), and their gradients (S, B, C).

        An optimisation of `stage2_loss`, which it is tested against, for the hand-written step in
        classify.train.head_step. With p a sample's probabilities, y its one-hot row and s = p y, the cross entropy has
        the gradient w / sum(w) (p - y), and a term f(s) the gradient f'(s) s (y - p).
        """
        pairs, classes = logits.shape[1:]
        one_hot = torch.eye(classes, dtype=logits.dtype, device=logits.device)[label]  # (S, B, C)
        weight = one_hot * self.class_weight.to(logits.dtype)
        weight = weight / weight.sum((1, 2), keepdim=True)
        log_probability = torch.log_softmax(logits, dim=2)
        probability = log_probability.exp()
        true = probability * one_hot
        counts = one_hot.sum(1, keepdim=True)  # (S, 1, C)
        share = counts.sign()
        share = share / share.sum(2, keepdim=True)  # 1 / classes present
        counts.clamp_min_(1)
        soft = true.sum(1, keepdim=True) / counts
        deviation = soft - (soft * share).sum(2, keepdim=True)
        slope = deviation * share  # half of the variance's gradient with respect to `soft`
        cross_entropy, variance = -(weight * log_probability).sum((1, 2)), (slope * deviation).sum((1, 2))
        loss = cross_entropy + self.mpca_weight * variance - (self.acc_weight / pairs) * true.sum((1, 2))
        d_true = (2 * self.mpca_weight) * (slope / counts) - self.acc_weight / pairs
        factor = (weight - d_true * true).sum(2, keepdim=True)  # (S, B, 1)
        return loss, factor * (probability - one_hot)


def stage2_loss(logits: Tensor, label: Tensor, class_weight: Tensor, mpca_weight: float, acc_weight: float) -> Tensor:
    """The scalar CE_w + mpca_weight * Var_c(s_c) - acc_weight * s, of logits (B, C) and labels (B,) int64.

    - CE_w: cross entropy, weighted by class and divided by the sum of the weights.
    - s_c: mean softmax probability of class c over the batch's samples of class c. Var_c is the population variance
      over the classes present in the batch; it is 0 if there is only one.
    - s: mean softmax probability of the true class over the batch.

    Uses tensor operators only, so it never synchronises with the device.
    """
    one_hot = (label.unsqueeze(1) == torch.arange(logits.shape[1], device=label.device)).to(logits.dtype)  # (B, C)
    log_true = (torch.log_softmax(logits, dim=1) * one_hot).sum(1)  # (B,)
    weight = one_hot @ class_weight.to(logits.dtype)  # (B,)
    cross_entropy = -(weight @ log_true) / weight.sum()
    true = log_true.exp()  # (B,)
    counts = one_hot.sum(0)  # (C,)
    share = (counts > 0).to(logits.dtype) / (counts > 0).sum()  # (C,), 1 / classes present
    soft = (true @ one_hot) / counts.clamp_min(1)  # (C,)
    variance = (soft - soft @ share).square() @ share
    return cross_entropy + mpca_weight * variance - acc_weight * true.mean()


def class_weights(counts: NDArray[np.int64], balance: str) -> tuple[float, ...]:
    """(C,) weights: with balance "loss" the inverse class counts, with mean 1 over the classes present; else ones.

    A class without training samples has weight 1, so that it still counts in the validation loss.
    """
    weight = np.ones(len(counts))
    present = counts > 0
    if balance == "loss":
        inverse = 1.0 / counts[present]
        weight[present] = inverse / inverse.mean()
    return tuple(float(value) for value in weight)
