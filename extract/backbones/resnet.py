"""The visual backbone: a torchvision ResNet up to its average pooling, with the input normalisation inside."""

from contextlib import nullcontext

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

NORMALISATION = "imagenet mean and std"
LAYER = "avgpool"
_MEAN = (0.485, 0.456, 0.406)  # of ImageNet, RGB in [0, 1], as torchvision uses them
_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """uint8 crops (P, 3, S, S) in [0, 255] -> float32 features (P, D): 512 (ResNet18, 34) or 2048 (ResNet50).

    A frozen backbone is always in eval mode and runs without gradients, so its parameters and BatchNorm statistics
    cannot change. In a trainable one, BatchNorm also stays in eval mode unless `train_batchnorm` is set: the crops of
    a batch come from few frames, so their mean and variance estimate the dataset's poorly.
    """

    layer = LAYER
    normalisation = NORMALISATION
    mean: Tensor
    std: Tensor

    def __init__(self, name: str, freeze: bool, train_batchnorm: bool = False) -> None:
        super().__init__()
        self.name = name
        self.resnet = torchvision.models.get_model(name, weights=None)
        self.out_dim: int = self.resnet.fc.in_features
        self.resnet.fc = nn.Identity()
        self.register_buffer("mean", 255 * torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        self.frozen = freeze
        self.train_batchnorm = train_batchnorm
        self.checkpointing = False  # recompute each stage's activations in the backward pass
        self._num_frozen = 0  # of `_stages()`
        self.requires_grad_(not freeze)
        self.train(not freeze)

    def freeze_stages(self, count: int) -> None:
        """Freezes the stem and the first `count` stages (1-4; 0: nothing); their BatchNorm stays in eval mode."""
        self._num_frozen = count + 1 if count else 0
        for stage in self._stages()[: self._num_frozen]:
            stage.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Backbone":
        """Sets the training mode, except for a frozen backbone and for BatchNorm that is not trained."""
        super().train(mode and not self.frozen)
        for stage in self._stages()[: self._num_frozen] if self.train_batchnorm else self._stages():
            for module in stage.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, persons: Tensor) -> Tensor:
        """(P, 3, S, S) uint8 crops, or the output of `forward_frozen_stages` for them -> (P, D) float32."""
        with torch.no_grad() if self.frozen else nullcontext():
            maps = self.forward_frozen_stages(persons) if persons.dtype == torch.uint8 else persons
            for stage in self._stages()[self._num_frozen :]:
                maps = self._forward_stage(stage, maps)
            features: Tensor = self.resnet.avgpool(maps).flatten(1)
            return features

    @torch.no_grad()
    def forward_frozen_stages(self, crops: Tensor) -> Tensor:
        """(P, 3, S, S) uint8 -> (P, C, H, W) float32: the normalised pixels, passed through the frozen stages."""
        maps = (crops.float() - self.mean) / self.std
        for stage in self._stages()[: self._num_frozen]:
            maps = stage(maps)
        return maps

    def _forward_stage(self, stage: nn.Module, maps: Tensor) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            recomputed: Tensor = checkpoint(stage, maps, use_reentrant=False, preserve_rng_state=False)
            return recomputed
        output: Tensor = stage(maps)
        return output

    def _stages(self) -> list[nn.Module]:
        """Returns the stem and the four stages. The stem is not an attribute: that would rename its parameters."""
        net = self.resnet
        stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        return [stem, net.layer1, net.layer2, net.layer3, net.layer4]
