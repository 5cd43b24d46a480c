"""A frozen ResNet for inference on the CPU: each BatchNorm is folded into its convolution, and weights are packed.

PyTorch's CPU convolutions are oneDNN's, which bring the weights into its own layout in each call. PyTorch's compiler
avoids that with operators of its own, `torch.ops.mkldnn`: their weights are packed once, and they also add the shortcut
and apply ReLU. They are not public, so they are used only if they exist and compute what the public operators do.
Otherwise the public ones are used, which take 5 to 12 % longer. Both gave the same float32 bits where they were
compared.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, conv2d, max_pool2d, pad, relu_

from extract.backbones.resnet import Backbone

# PyTorch computes some convolutions of smaller batches without oneDNN, which rounds differently (its Convolution.cpp)
_MIN_PUBLIC_BATCH = 16
_PACK_FOR = 16  # crops per batch; other sizes work, but may bring the weights into another layout in each call


class FoldedResNet:
    """uint8 crops (P, 3, S, S), channels last -> features (P, D) float32. For inference only.

    A crop's features do not depend on the rest of the batch or on its size, not even in one bit.

    Args:
        crop_size: S. The weights are packed for crops of this size.
        dtype: of the weights and of the maps between layers. With float32 the features are within 1e-5 (relative) of
            the backbone's. With bfloat16, products are summed in float32 and each map is rounded.
    """

    @torch.no_grad()
    def __init__(self, backbone: Backbone, crop_size: int, dtype: torch.dtype = torch.float32) -> None:
        net = backbone.resnet
        stages = (net.layer1, net.layer2, net.layer3, net.layer4)
        self._dtype = dtype
        self._mean = backbone.mean
        self._stem = _fold(net.conv1, net.bn1, dtype, input_scale=1 / backbone.std)
        self._blocks = [_Block(block, dtype) for stage in stages for block in stage]
        self._min_batch = 1 if can_pack() else _MIN_PUBLIC_BATCH
        example = torch.zeros((_PACK_FOR, 3, crop_size, crop_size), dtype=torch.uint8)
        self(example.contiguous(memory_format=torch.channels_last))  # packs the weights

    @torch.inference_mode()
    def __call__(self, crops: Tensor) -> Tensor:
        """(P, 3, S, S) uint8, channels last -> (P, D) float32."""
        count = len(crops)
        if count < self._min_batch:
            crops = pad(crops, (0, 0, 0, 0, 0, 0, 0, self._min_batch - count))
        # the stem's weights include the division by std; its zero padding stands for pixels of the mean
        maps = (crops - self._mean).to(self._dtype)
        maps = max_pool2d(self._stem(maps), kernel_size=3, stride=2, padding=1)
        for block in self._blocks:
            maps = block(maps)
        return adaptive_avg_pool2d(maps.float(), 1).flatten(1)[:count]


class _Block:
    """torchvision's BasicBlock or Bottleneck."""

    def __init__(self, block: nn.Module, dtype: torch.dtype) -> None:
        layers: Any = block
        pairs = [(layers.conv1, layers.bn1), (layers.conv2, layers.bn2)]
        if hasattr(layers, "conv3"):
            pairs.append((layers.conv3, layers.bn3))
        *self._first, self._last = (_fold(conv, norm, dtype) for conv, norm in pairs)
        self._downsample = (
            None if layers.downsample is None else _fold(layers.downsample[0], layers.downsample[1], dtype)
        )

    def __call__(self, maps: Tensor) -> Tensor:
        """May overwrite `maps`."""
        shortcut = maps if self._downsample is None else self._downsample(maps, relu=False)
        for convolution in self._first:
            maps = convolution(maps)
        return self._last.add_to(shortcut, maps)


class _Convolution:
    """A convolution, with ReLU, by PyTorch's public operators."""

    def __init__(self, weight: Tensor, bias: Tensor, layer: nn.Conv2d) -> None:
        self._weight, self._bias = weight, bias
        self._geometry: Any = (layer.stride, layer.padding, layer.dilation, layer.groups)

    def __call__(self, maps: Tensor, relu: bool = True) -> Tensor:
        output = conv2d(maps, self._weight, self._bias, *self._geometry)
        return relu_(output) if relu else output

    def add_to(self, shortcut: Tensor, maps: Tensor) -> Tensor:
        """Returns relu(shortcut + convolution of maps), in the memory of `shortcut`."""
        return relu_(shortcut.add_(self(maps, relu=False)))


class _PackedConvolution(_Convolution):
    """The same in one operator, with weights that are packed for the shape of the first input."""

    def __init__(self, weight: Tensor, bias: Tensor, layer: nn.Conv2d) -> None:
        super().__init__(weight, bias, layer)
        self._geometry = (layer.padding, layer.stride, layer.dilation, layer.groups)  # another order
        self._is_packed = False

    def __call__(self, maps: Tensor, relu: bool = True) -> Tensor:
        convolve: Any = torch.ops.mkldnn._convolution_pointwise
        after = "relu" if relu else "none"
        output: Tensor = convolve(maps, self._pack(maps), self._bias, *self._geometry, after, [], "")
        return output

    def add_to(self, shortcut: Tensor, maps: Tensor) -> Tensor:
        convolve: Any = torch.ops.mkldnn._convolution_pointwise_
        inputs = (shortcut, maps, self._pack(maps), self._bias)
        output: Tensor = convolve(*inputs, *self._geometry, "add", 1.0, "relu", [], "")
        return output

    def _pack(self, maps: Tensor) -> Tensor:
        if not self._is_packed:
            pack: Any = torch.ops.mkldnn._reorder_convolution_weight
            self._weight = pack(self._weight, *self._geometry, list(maps.shape))
            self._is_packed = True
        return self._weight


def _fold(
    layer: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype, input_scale: Tensor | None = None
) -> _Convolution:
    """Returns convolution and BatchNorm as one; `input_scale` (1, C, 1, 1) multiplies the channels of its input."""
    folded = nn.utils.fuse_conv_bn_eval(layer, norm)
    assert folded.bias is not None  # BatchNorm has one
    weight = folded.weight if input_scale is None else folded.weight * input_scale
    weight = weight.detach().to(dtype, memory_format=torch.channels_last)
    kind = _PackedConvolution if can_pack() else _Convolution
    return kind(weight, folded.bias.detach().to(dtype), layer)


@cache
def can_pack() -> bool:
    """Whether PyTorch's private operators for packed weights exist and compute what the public ones do."""
    layer = nn.Conv2d(32, 32, 3, padding=1, device="meta")  # on "meta" it draws no random numbers
    numbers = torch.linspace(-1, 1, 32 * 32 * 9)
    weight = numbers.view(32, 32, 3, 3).contiguous(memory_format=torch.channels_last)
    maps = numbers[:4096].view(2, 32, 8, 8).contiguous(memory_format=torch.channels_last)
    plain = _Convolution(weight, numbers[:32], layer)
    try:
        packed = _PackedConvolution(weight, numbers[:32], layer)
        pairs = [(packed(maps), plain(maps)), (packed.add_to(maps.clone(), maps), plain.add_to(maps.clone(), maps))]
    except (AttributeError, TypeError, ValueError, RuntimeError):  # another version of torch, or torch without oneDNN
        return False
    return all(torch.allclose(actual, expected, atol=1e-4) for actual, expected in pairs)
