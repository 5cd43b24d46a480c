"""A frozen ResNet as an ONNX graph with 8-bit weights and activations, and the activation ranges that it needs.

Static quantisation in the QDQ form (each quantised map is followed by DequantizeLinear; runtimes fuse them into integer
operators): activations are unsigned 8-bit with one scale for each map, weights signed 8-bit with one scale for each
output channel, sums int32. Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference" (CVPR 2018).

All numbers are derived from weights and ranges by float64 additions, multiplications, divisions and square roots, which
IEEE 754 rounds in one way only. So the same weights and ranges give the same graph, bit for bit, on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d

from extract.backbones.resnet import Backbone

Ranges = dict[str, list[float]]  # map -> its smallest value (at most 0) and its largest (at least 0)
Array = NDArray[Any]
OPSET, IR_VERSION = 17, 8
DIGITS = 3  # of the ranges, which are rounded outwards: a machine that rounds differently finds the same ones
PIXELS, POOL = "pixels", "pool"  # the input without its mean, and the stem's output after max pooling
_STEPS, _WEIGHT_STEPS, _BIAS_STEPS = 255, 127, 2**30


@dataclass(frozen=True)
class Convolution:
    """A convolution with its BatchNorm folded in; its name is that of its output."""

    name: str
    weight: NDArray[np.float64]  # (out, in, height, width)
    bias: NDArray[np.float64]  # (out,)
    stride: int
    padding: int
    relu: bool


@dataclass(frozen=True)
class Block:
    """torchvision's BasicBlock or Bottleneck; its name is that of its output, after addition and ReLU."""

    name: str
    convolutions: list[Convolution]
    downsample: Convolution | None


@torch.no_grad()
def folded_blocks(backbone: Backbone) -> tuple[Convolution, list[Block]]:
    """The stem, whose weights include the division by the pixels' standard deviation, and the residual blocks."""
    net = backbone.resnet
    stem = _fold("stem", net.conv1, net.bn1, relu=True, scale=1 / backbone.std.double().numpy())
    blocks = []
    for number, stage in enumerate((net.layer1, net.layer2, net.layer3, net.layer4), start=1):
        for index, block in enumerate(stage):
            layers: Any = block
            name = f"layer{number}.{index}"
            pairs = [(layers.conv1, layers.bn1), (layers.conv2, layers.bn2)]
            if hasattr(layers, "conv3"):
                pairs.append((layers.conv3, layers.bn3))
            convolutions = [
                _fold(f"{name}.conv{position}", layer, norm, relu=position < len(pairs))
                for position, (layer, norm) in enumerate(pairs, start=1)
            ]
            shortcut = layers.downsample
            downsample = None if shortcut is None else _fold(f"{name}.downsample", shortcut[0], shortcut[1], relu=False)
            blocks.append(Block(name, convolutions, downsample))
    return stem, blocks


def _fold(
    name: str, layer: nn.Conv2d, norm: nn.BatchNorm2d, relu: bool, scale: NDArray[np.float64] | None = None
) -> Convolution:
    statistics: Any = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    mean, var, gamma, beta = (tensor.detach().double().cpu().numpy() for tensor in statistics)
    factor = gamma / np.sqrt(var + norm.eps)
    weight = layer.weight.detach().double().cpu().numpy() * factor[:, None, None, None]
    if scale is not None:
        weight = weight * scale
    return Convolution(name, weight, beta - mean * factor, layer.stride[0], int(layer.padding[0]), relu)


class RangeObserver:
    """Crops (P, 3, S, S) uint8 -> the smallest and largest value of each map, in float32; for several threads."""

    def __init__(self, backbone: Backbone) -> None:
        self._mean = backbone.mean
        self._stem, self._blocks = folded_blocks(backbone)
        convolutions = [self._stem, *(layer for block in self._blocks for layer in _layers(block))]
        self._tensors = {layer.name: _tensors(layer) for layer in convolutions}

    @torch.inference_mode()
    def __call__(self, crops: Tensor) -> Ranges:
        """The ranges of one batch, not rounded."""
        ranges: Ranges = {}
        maps = self._convolve(self._stem, (crops - self._mean).contiguous(memory_format=torch.channels_last), ranges)
        maps = max_pool2d(maps, kernel_size=3, stride=2, padding=1)
        for block in self._blocks:
            shortcut = maps if block.downsample is None else self._convolve(block.downsample, maps, ranges)
            for layer in block.convolutions:
                maps = self._convolve(layer, maps, ranges)
            maps = (maps + shortcut).relu_()
            if block is not self._blocks[-1]:  # the last map is not quantised
                _record(block.name, maps, ranges)
        return ranges

    def _convolve(self, layer: Convolution, maps: Tensor, ranges: Ranges) -> Tensor:
        output = conv2d(maps, *self._tensors[layer.name], layer.stride, layer.padding)
        output = output.relu_() if layer.relu else output
        _record(layer.name, output, ranges)
        return output


def _layers(block: Block) -> list[Convolution]:
    return [*block.convolutions, *([] if block.downsample is None else [block.downsample])]


def _tensors(layer: Convolution) -> tuple[Tensor, Tensor]:
    weight = torch.from_numpy(layer.weight).float().contiguous(memory_format=torch.channels_last)
    return weight, torch.from_numpy(layer.bias).float()


def _record(name: str, maps: Tensor, ranges: Ranges) -> None:
    low, high = torch.aminmax(maps)
    ranges[name] = [min(0.0, float(low)), max(0.0, float(high))]


def merge_ranges(parts: Iterable[Ranges]) -> Ranges:
    """The ranges of all parts together, rounded outwards."""
    merged: Ranges = {}
    for part in parts:
        for name, (low, high) in part.items():
            old = merged.get(name, [0.0, 0.0])
            merged[name] = [min(low, old[0]), max(high, old[1])]
    return {name: [_round_outwards(value) for value in merged[name]] for name in sorted(merged)}


def _round_outwards(value: float) -> float:
    """`value`, with its magnitude rounded up to DIGITS digits."""
    if value == 0:
        return 0.0
    unit = math.floor(math.log10(abs(value))) - DIGITS + 1
    steps = math.ceil(abs(value) / 10.0**unit)
    return math.copysign(float(f"{steps}e{unit}"), value)


def build_graph(backbone: Backbone, ranges: Ranges) -> bytes:
    """The ONNX model: uint8 "crops" (P, 3, S, S) -> float32 "features" (P, D), for any P and S."""
    stem, blocks = folded_blocks(backbone)
    mean = backbone.mean.numpy()
    graph = _Graph(ranges | {PIXELS: [-float(mean.max()), _STEPS - float(mean.min())], POOL: ranges[stem.name]})
    pixels = graph.add("Cast", ["crops"], to=graph.onnx.TensorProto.FLOAT)
    graph.quantize(PIXELS, graph.add("Sub", [pixels, graph.constant("mean", mean)]))
    graph.convolve(stem, PIXELS)
    graph.max_pool(stem.name)
    last = POOL
    for block in blocks:
        shortcut = last
        if block.downsample is not None:
            graph.convolve(block.downsample, last)
            shortcut = block.downsample.name
        for layer in block.convolutions:
            graph.convolve(layer, last)
            last = layer.name
        total = graph.add("Add", [graph.dequantized(last), graph.dequantized(shortcut)])
        if block is not blocks[-1]:  # the last map is averaged in float32
            graph.quantize(block.name, total)
        last = block.name
    average = graph.add("GlobalAveragePool", [graph.add("Relu", [total])])
    graph.add("Flatten", [average], output="features")
    return graph.model(out_dim=backbone.out_dim)


class _Graph:
    """Collects the nodes and constants of a graph. A quantised map `m` has the tensors m/q, m/scale and m/zero."""

    def __init__(self, ranges: Ranges) -> None:
        import onnx

        self.onnx: Any = onnx
        self._ranges = ranges
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def add(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """Adds an operator; returns the name of its output."""
        output = output or f"{kind.lower()}{len(self._nodes)}"
        self._nodes.append(self.onnx.helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: Array) -> str:
        """Adds a constant; returns its name. Scalars stay scalars, or the runtime does not fuse additions."""
        self._constants.append(self.onnx.numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def quantize(self, name: str, values: str) -> None:
        """Adds the quantised map `name`. Where ReLU belongs, the range begins at 0, so saturation is the ReLU."""
        self.add("QuantizeLinear", [values, *self._parameters(name)], output=f"{name}/q")

    def dequantized(self, name: str) -> str:
        """The quantised map `name` as float32. Each use has its own operator, which runtimes expect."""
        return self.add("DequantizeLinear", [f"{name}/q", f"{name}/scale", f"{name}/zero"])

    def max_pool(self, name: str) -> None:
        """Adds the map POOL: max pooling of the map `name`, of 8-bit values."""
        self._parameters(POOL)
        shape: dict[str, Any] = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
        self.add("MaxPool", [f"{name}/q"], output=f"{POOL}/q", **shape)

    def convolve(self, layer: Convolution, source: str) -> None:
        """Adds the quantised map `layer.name`: the convolution of the quantised map `source`."""
        scale = float(self._scale(source)[0])
        largest = np.abs(layer.weight).max(axis=(1, 2, 3)) / _WEIGHT_STEPS
        fitting = np.abs(layer.bias) / (scale * _BIAS_STEPS)  # a channel without weights may have a bias
        steps = np.maximum(np.maximum(largest, fitting), 1e-30).astype(np.float32)  # (out,)
        weight = np.rint(layer.weight / steps[:, None, None, None].astype(np.float64))
        bias_steps = (steps.astype(np.float64) * scale).astype(np.float32)
        bias = np.rint(layer.bias / bias_steps.astype(np.float64))
        inputs = [
            self.dequantized(source),
            self._dequantized_constant(f"{layer.name}/weight", weight.clip(-127, 127).astype(np.int8), steps),
            self._dequantized_constant(f"{layer.name}/bias", bias.astype(np.int32), bias_steps),
        ]
        shape: Any = {
            "strides": [layer.stride] * 2,
            "pads": [layer.padding] * 4,
            "kernel_shape": layer.weight.shape[2:],
        }
        self.quantize(layer.name, self.add("Conv", inputs, **shape))

    def model(self, out_dim: int) -> bytes:
        """The serialized model."""
        helper, types = self.onnx.helper, self.onnx.TensorProto
        crops = helper.make_tensor_value_info("crops", types.UINT8, ["persons", 3, "size", "size"])
        features = helper.make_tensor_value_info("features", types.FLOAT, ["persons", out_dim])
        graph = helper.make_graph(self._nodes, "backbone", [crops], [features], self._constants)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="stage2")
        content: bytes = model.SerializeToString(deterministic=True)
        return content

    def _scale(self, name: str) -> tuple[np.float32, np.uint8]:
        """Scale and zero point of a map."""
        low, high = self._ranges[name]
        scale = np.float32(max(high - low, 1e-8) / _STEPS)
        return scale, np.uint8(np.rint(-low / float(scale)).clip(0, _STEPS))

    def _parameters(self, name: str) -> list[str]:
        scale, zero = self._scale(name)
        return [self.constant(f"{name}/scale", np.array(scale)), self.constant(f"{name}/zero", np.array(zero))]

    def _dequantized_constant(self, name: str, values: Array, steps: NDArray[np.float32]) -> str:
        zeros = np.zeros(len(steps), values.dtype)
        names = [
            self.constant(f"{name}{end}", part) for end, part in (("", values), ("/scale", steps), ("/zero", zeros))
        ]
        return self.add("DequantizeLinear", names, axis=0)
