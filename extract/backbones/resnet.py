"""The visual backbone: a torchvision ResNet up to its pooled layer, with the normalisation inside."""

from contextlib import nullcontext

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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

    layer = LAYER
    normalisation = NORMALISATION
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
        self.checkpointing = False  # compute each stage's activations again in the backward pass
        self.still = 0  # how many of `_stages` stay as they are
        self.requires_grad_(not freeze)
        self.train(not freeze)

    def freeze_stages(self, count: int) -> None:
        """Keeps the stem and the first `count` stages (1-4; 0: nothing) as they are: no gradient, no moving norm."""
        self.still = count + 1 if count else 0
        for stage in self._stages()[: self.still]:
            stage.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Backbone":
        """Sets the training mode; a frozen backbone stays in eval mode."""
        super().train(mode and not self.frozen)
        for stage in self._stages() if not self.moving_norm else self._stages()[: self.still]:
            for module in stage.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, persons: Tensor) -> Tensor:
        """(P, 3, S, S) uint8 crops, or what `still_stages` made of them -> (P, D) float32."""
        with torch.no_grad() if self.frozen else nullcontext():
            maps = self.still_stages(persons) if persons.dtype == torch.uint8 else persons
            for stage in self._stages()[self.still :]:
                maps = self._through(stage, maps)
            features: Tensor = self.resnet.avgpool(maps).flatten(1)
            return features

    @torch.no_grad()
    def still_stages(self, crops: Tensor) -> Tensor:
        """(P, 3, S, S) uint8 -> float32 normalised pixels (P, 3, S, S), or the last still stage's maps."""
        maps = (crops.float() - self.mean) / self.std
        for stage in self._stages()[: self.still]:
            maps = stage(maps)
        return maps

    def _through(self, stage: nn.Module, maps: Tensor) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            again: Tensor = checkpoint(stage, maps, use_reentrant=False, preserve_rng_state=False)
            return again
        once: Tensor = stage(maps)
        return once

    def _stages(self) -> list[nn.Module]:
        """The stem and the four stages; made anew, so that their parameters keep one name."""
        net = self.resnet
        stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        return [stem, net.layer1, net.layer2, net.layer3, net.layer4]
