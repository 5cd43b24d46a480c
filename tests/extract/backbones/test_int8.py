"""The int8 backbone compared with torchvision's float32 model; its bits and its refusals."""

import math
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from configs.errors import ConfigError, DeviceError
from extract.backbones.hog import Hog
from extract.backbones.int8 import check_int8, int8_forward
from extract.backbones.int8_graph import PIXELS, RangeObserver, Ranges, build_graph, merge_ranges
from extract.backbones.weights import LoadedBackbone, load_backbone

onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnx", reason="the extra onnx is not installed")
CPU = torch.device("cpu")


def noise(count: int, seed: int, size: int = 64) -> Tensor:
    """(count, 3, size, size) uint8: smooth random images with bright borders, channels last."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand((count, 3, 9, 9), generator=generator)
    pixels = nn.functional.interpolate(small, size=(size, size), mode="bilinear") * 255
    pixels[..., :4], pixels[..., -4:, :] = 250, 5
    return pixels.to(torch.uint8).contiguous(memory_format=torch.channels_last)


def ranges_of(loaded: LoadedBackbone, crops: Tensor) -> Ranges:
    assert not isinstance(loaded.backbone, Hog)
    return merge_ranges([RangeObserver(loaded.backbone)(crops)])


def plain_features(loaded: LoadedBackbone, crops: Tensor) -> Tensor:
    """By torchvision's own model and its own normalisation."""
    model = torchvision.models.get_model(loaded.backbone.name, weights=None)
    model.fc = nn.Identity()
    model.load_state_dict(loaded.backbone.resnet.state_dict())
    normalise = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        return Tensor(model.eval()(normalise(crops.float() / 255)))


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_int8_features_are_near_those_of_torchvision(name: str) -> None:
    loaded = load_backbone(name, "random")
    ranges = ranges_of(loaded, noise(12, seed=1))
    crops = noise(6, seed=2)
    actual = int8_forward(loaded.backbone, CPU, ranges)(crops).double()
    expected = plain_features(loaded, crops).double()
    assert actual.shape == expected.shape
    error = (actual - expected).norm(dim=1) / expected.norm(dim=1)
    assert 0 < float(error.max()) < 0.05  # 0 would be float32


def test_a_crop_has_the_same_bits_in_each_batch_and_thread() -> None:
    loaded = load_backbone("resnet18", "random")
    crops = noise(33, seed=3)
    forward = int8_forward(loaded.backbone, CPU, ranges_of(loaded, crops[:8]))
    whole = forward(crops)
    for start, count in ((0, 1), (7, 1), (3, 5), (1, 16), (0, 32)):
        assert torch.equal(forward(crops[start : start + count]), whole[start : start + count])
    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(rows, whole) for rows in pool.map(forward, [crops] * 8))


def test_the_graph_has_the_same_bytes_each_time_and_follows_ranges_and_weights() -> None:
    loaded, again = load_backbone("resnet18", "random"), load_backbone("resnet18", "random")
    ranges = ranges_of(loaded, noise(4, seed=4))
    graph = build_graph(loaded.backbone, ranges)
    assert graph == build_graph(again.backbone, dict(reversed(ranges.items())))
    assert graph != build_graph(loaded.backbone, ranges | {"stem": [0.0, ranges["stem"][1] + 1]})
    again.backbone.resnet.bn1.bias.data[3] += 1
    assert graph != build_graph(again.backbone, ranges)


def test_a_channel_without_weights_keeps_its_bias() -> None:
    loaded = load_backbone("resnet18", "random")
    block = loaded.backbone.resnet.layer4[1]
    block.bn2.weight.data[5], block.bn2.bias.data[5] = 0.0, 40.0
    crops = noise(4, seed=5)
    actual = int8_forward(loaded.backbone, CPU, ranges_of(loaded, crops))(crops)[:, 5]
    assert float((actual - plain_features(loaded, crops)[:, 5]).abs().max()) < 1


def test_ranges_are_those_of_each_map_and_contain_zero() -> None:
    loaded = load_backbone("resnet18", "random")
    crops = noise(5, seed=6)
    seen: dict[str, Tensor] = {}
    net = loaded.backbone.resnet
    hooks = {"stem": net.relu, "layer2.0": net.layer2[0], "layer3.0.downsample": net.layer3[0].downsample}
    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output.clone()}))
        for name, module in hooks.items()
    ]
    loaded.backbone(crops)
    for handle in handles:
        handle.remove()
    ranges = ranges_of(loaded, crops)
    for name, maps in seen.items():
        low, high = ranges[name]
        assert low <= min(0, float(maps.min())) and max(0, float(maps.max())) <= high
        assert high <= max(0, float(maps.max())) * 1.011 and low >= min(0, float(maps.min())) * 1.011
    assert PIXELS not in ranges  # known without measuring
    assert all(low <= 0 <= high for low, high in ranges.values())


@given(st.lists(st.tuples(st.floats(-1e4, 0), st.floats(0, 1e4)), min_size=1, max_size=5))
def test_merged_ranges_contain_all_parts_and_are_rounded_to_three_digits(pairs: list[tuple[float, float]]) -> None:
    low, high = merge_ranges([{"map": [low, high]} for low, high in pairs])["map"]
    lowest, highest = min(pair[0] for pair in pairs), max(pair[1] for pair in pairs)
    assert low <= lowest and highest <= high
    assert [low, high] == [float(f"{value:.3g}") for value in (low, high)]
    assert math.isclose(low, lowest, rel_tol=0.011) and math.isclose(high, highest, rel_tol=0.011)
    assert merge_ranges([{"map": [low, high]}])["map"] == [low, high]


def test_int8_is_refused_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="hog has none"):
        check_int8(Hog(), CPU)
    resnet = load_backbone("resnet18", "random").backbone
    with pytest.raises(DeviceError, match=r"CPU only.*--device cpu.*bfloat16"):
        check_int8(resnet, torch.device("cuda"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"needs onnxruntime.*stage2\[onnx\]"):
        check_int8(resnet, CPU)


def test_features_are_float32_of_their_own_memory() -> None:
    loaded = load_backbone("resnet18", "random")
    crops = noise(2, seed=7)
    features = int8_forward(loaded.backbone, CPU, ranges_of(loaded, crops))(crops)
    assert features.dtype == torch.float32
    assert np.isfinite(features.numpy()).all()


def test_the_runtime_fuses_the_graph_into_integer_operators(tmp_path: Path) -> None:
    import onnx

    loaded = load_backbone("resnet18", "random")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    graph = build_graph(loaded.backbone, ranges_of(loaded, noise(2, seed=8)))
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]
    assert kinds.count("QLinearConv") == 20
    assert kinds.count("QLinearAdd") == 7  # all but the last block's, which is float32
    assert kinds.count("Conv") == 0 and kinds.count("Add") == 1
