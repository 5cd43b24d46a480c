"""The visual backbone: a torchvision ResNet up to its pooled layer, with the normalisation inside."""

from contextlib import nullcontext

import torch
import torchvision
from torch import Tensor, nn

NORMALISATION = "imagenet mean and std"
LAYER = "avgpool"
_MEAN = (0.485, 0.456, 0.406)  # of ImageNet, RGB, values in [0, 1]: torchvision's own
_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """uint8 crops (P, 3, S, S) in [0, 255] -> float32 features (P, D): 512 (ResNet18, 34) or 2048 (ResNet50).

    Frozen, it is always in eval mode and forwards without gradient, so neither its parameters nor its BatchNorm
    buffers can move. Unfrozen, its BatchNorm still normalises by the running figures, unless `moving_norm` is given:
    the crops of one batch come from few frames, so their own mean and variance are poor figures.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, freeze: bool, moving_norm: bool = False) -> None:
        super().__init__()
        self.name = name
        self.resnet = torchvision.models.get_model(name, weights=None)
        self.out_dim: int = self.resnet.fc.in_features
        self.resnet.fc = nn.Identity()
        self.register_buffer("mean", 255 * torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        self.frozen = freeze
        self.moving_norm = moving_norm
        self.requires_grad_(not freeze)
        self.train(not freeze)

    def train(self, mode: bool = True) -> "Backbone":
        """Sets the training mode; a frozen backbone stays in eval mode."""
        super().train(mode and not self.frozen)
        if not self.moving_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, crops: Tensor) -> Tensor:
        """(P, 3, S, S) uint8 -> (P, D) float32."""
        with torch.no_grad() if self.frozen else nullcontext():
            pixels = (crops.float() - self.mean) / self.std
            features: Tensor = self.resnet(pixels)
            return features
