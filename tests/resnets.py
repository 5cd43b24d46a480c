"""Random crops and backbones, and torchvision's features of them, to compare with."""

import torch
import torchvision
from torch import Tensor, nn

from extract.backbones.resnet import Backbone


def crops(count: int, size: int = 32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def torchvision_features(backbone: Backbone, pixels: Tensor) -> Tensor:
    """Returns the features of torchvision's model with its preprocessing, without resizing."""
    model = torchvision.models.get_model(backbone.name, weights=None)
    model.fc = nn.Identity()
    model.load_state_dict(backbone.resnet.state_dict())
    model.eval()
    normalise = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        features: Tensor = model(normalise(pixels.float() / 255))
    return features


def with_random_batchnorm(backbone: Backbone) -> Backbone:
    """Gives BatchNorm random statistics instead of the trivial ones of new weights."""
    generator = torch.Generator().manual_seed(1)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
            with torch.no_grad():
                module.weight.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
                module.bias.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
    return backbone
