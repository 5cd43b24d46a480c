"""Weights are identified by their tensors; files are loaded or refused with a reason, and never run code."""

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from configs.errors import WeightsError
from extract.backbones.tensor_file import read_tensor_file
from extract.backbones.weights import load_backbone, state_sha256

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def resnet18() -> State:
    torch.manual_seed(5)
    return dict(torchvision.models.resnet18(weights=None).state_dict())


@pytest.fixture(scope="module")
def sha(resnet18: State) -> str:
    return state_sha256({key: value for key, value in resnet18.items() if not key.startswith("fc.")})


def saved(tmp_path: Path, content: Any, **options: Any) -> str:
    path = tmp_path / "weights.pth"
    torch.save(content, path, **options)
    return str(path)


def test_random_weights_are_always_the_same_and_do_not_change_the_random_state() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one = load_backbone("resnet18", "random")
    assert torch.equal(torch.rand(3), expected)
    other = load_backbone("resnet18", "random")
    assert one.sha256 == other.sha256
    assert one.source == "random"
    assert load_backbone("resnet34", "random").sha256 != one.sha256


def containers(state: State) -> dict[str, Any]:
    return {
        "torchvision": state,
        "ordered": OrderedDict(reversed(state.items())),
        "end to end": {"model": {f"backbone.resnet.{key}": value for key, value in state.items()}, "epoch": 3}
        | {"model_note": "text"},
        "resnet": {f"resnet.{key}": value for key, value in state.items()},
        "distributed": {f"module.{key}": value for key, value in state.items()},
        "no classifier": {key: value for key, value in state.items() if not key.startswith("fc.")},
        "no counters": {key: value for key, value in state.items() if not key.endswith("tracked")},
    }


@pytest.mark.parametrize("kind", containers({}))
def test_the_checksum_does_not_depend_on_the_container(tmp_path: Path, resnet18: State, sha: str, kind: str) -> None:
    loaded = load_backbone("resnet18", saved(tmp_path, containers(resnet18)[kind]))
    assert loaded.sha256 == sha
    assert loaded.source == "weights.pth"
    assert torch.equal(loaded.backbone.resnet.conv1.weight, resnet18["conv1.weight"])


def test_the_head_in_a_checkpoint_of_an_end_to_end_run_is_ignored(tmp_path: Path, resnet18: State, sha: str) -> None:
    model = {f"backbone.resnet.{key}": value for key, value in resnet18.items() if not key.startswith("fc.")}
    content = {"model": model | {"head.out.weight": torch.zeros(3, 4)}, "config": {"a": [1, "b"]}}
    assert load_backbone("resnet18", saved(tmp_path, content)).sha256 == sha


def test_the_legacy_file_format_is_read(tmp_path: Path, resnet18: State, sha: str) -> None:
    path = saved(tmp_path, resnet18, _use_new_zipfile_serialization=False)
    assert load_backbone("resnet18", path).sha256 == sha


def test_one_changed_value_changes_the_checksum(tmp_path: Path, resnet18: State, sha: str) -> None:
    changed = {key: value.clone() for key, value in resnet18.items()}
    changed["layer4.1.bn2.running_var"][3] += 1e-3
    assert load_backbone("resnet18", saved(tmp_path, changed)).sha256 != sha


def unusable(state: State) -> dict[str, tuple[Any, str]]:
    """Returns kind -> content of a file and a part of the expected message."""
    weight = state["layer2.0.conv1.weight"]
    nan = weight.clone()
    nan[0, 0, 0, 0] = float("nan")
    without = {key: value for key, value in state.items() if key != "layer2.0.conv1.weight"}
    return {
        "missing": (without, "lacks layer2.0.conv1.weight"),
        "nan": (without | {"layer2.0.conv1.weight": nan}, "NaN or infinite values in layer2.0.conv1.weight"),
        "half": (without | {"layer2.0.conv1.weight": weight.half()}, "layer2.0.conv1.weight of type torch.float16"),
        "integers": (without | {"layer2.0.conv1.weight": weight.int()}, "of type torch.int32"),
        "shape": (without | {"layer2.0.conv1.weight": weight[:1]}, r"layer2.0.conv1.weight of shape \(1, "),
        "sparse": (without | {"layer2.0.conv1.weight": weight.to_sparse()}, "layer2.0.conv1.weight .* sparse or meta"),
        "meta": (without | {"layer2.0.conv1.weight": weight.to("meta")}, "layer2.0.conv1.weight .* sparse or meta"),
        "not a tensor": (without | {"layer2.0.conv1.weight": 3}, "lacks layer2.0.conv1.weight"),
        "unknown": (state | {"layer9.weight": weight}, "has layer9.weight"),
        "list": ([weight], "contains a list"),
        "tensor": (weight, "contains a Tensor"),
        "empty": ({}, "not contain a ResNet backbone"),
        "head only": ({"model": {"head.weight": weight}}, "not contain a ResNet backbone"),
        "model is not a dict": ({"model": 3}, "contains a int"),
        "numbers as keys": ({3: weight}, "not contain a ResNet backbone"),
    }


@pytest.mark.parametrize("kind", unusable(dict.fromkeys(["layer2.0.conv1.weight"], torch.ones(2, 2, 1, 1))))
def test_unusable_weights_are_refused_with_the_tensors_name(tmp_path: Path, resnet18: State, kind: str) -> None:
    content, word = unusable(resnet18)[kind]
    path = saved(tmp_path, content)
    with pytest.raises(WeightsError, match=word) as error:
        load_backbone("resnet18", path)
    assert "weights.pth" in str(error.value)


@pytest.mark.parametrize("name", ["resnet34", "resnet50"])
def test_another_backbones_weights_are_refused(tmp_path: Path, resnet18: State, name: str) -> None:
    with pytest.raises(WeightsError, match=f"{name}.*check --backbone"):
        load_backbone(name, saved(tmp_path, resnet18))


def test_a_larger_backbones_weights_are_refused(tmp_path: Path) -> None:
    state = torchvision.models.resnet34(weights=None).state_dict()
    with pytest.raises(WeightsError, match=r"resnet18 does not"):
        load_backbone("resnet18", saved(tmp_path, state))


class Evil:
    """Creates a folder when it is unpickled without restrictions."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def evil_files(folder: Path, marker: Path) -> list[Path]:
    plain, zipped, legacy, numpy_file = (folder / name for name in ("a.pth", "b.pth", "c.pth", "d.npy"))
    plain.write_bytes(pickle.dumps(Evil(marker)))
    torch.save({"conv1.weight": Evil(marker)}, zipped)
    torch.save({"conv1.weight": Evil(marker)}, legacy, _use_new_zipfile_serialization=False)
    np.save(numpy_file, np.array([Evil(marker)], object), allow_pickle=True)
    return [plain, zipped, legacy, numpy_file]


def test_malicious_files_run_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "pwned"
    paths = evil_files(tmp_path, marker)
    for path in paths:
        with pytest.raises(WeightsError, match="cannot be loaded"):
            load_backbone("resnet18", str(path))
        assert not marker.exists(), path
    torch.load(paths[1], weights_only=False)  # proves that the file is malicious
    assert marker.is_dir()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\3\4" + b"\0" * 50, b"\x80\x02.", b"\x80\x04N.", b"{}"])
def test_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"weights\.pth"):
        load_backbone("resnet18", str(path))


def test_missing_files_folders_and_odd_names_are_refused(tmp_path: Path) -> None:
    for name in (str(tmp_path / "none.pth"), str(tmp_path), "a\0b", "n" * 5000, "", "\ud800"):
        with pytest.raises(WeightsError):
            load_backbone("resnet18", name)


def small_files(folder: Path) -> list[bytes]:
    content = {"a": torch.arange(4.0), "b": [1, "two", None, 3.5, True]}
    for name, zipped in (("new", True), ("old", False)):
        torch.save(content, folder / name, _use_new_zipfile_serialization=zipped)
    return [(folder / name).read_bytes() for name in ("new", "old")]


@given(st.integers(0, 1), st.integers(0, 10**6), st.binary(min_size=1, max_size=3), st.booleans())
def test_damaged_files_give_values_or_a_value_error(
    tmp_path_factory: pytest.TempPathFactory, which: int, at: int, junk: bytes, cut: bool
) -> None:
    folder = tmp_path_factory.mktemp("files")
    data = bytearray(small_files(folder)[which])
    at %= len(data)
    data[at : at + len(junk)] = junk
    path = folder / "damaged"
    path.write_bytes(data[: at + 1] if cut else data)
    try:
        read_tensor_file(path)
    except ValueError as error:
        assert str(error)


def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "script.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("script/constants.pkl", b"\x80\x02.")
        archive.writestr("script/data.pkl", b"\x80\x02.")
        archive.writestr("script/version", b"3")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_backbone("resnet18", str(path))


def offline(*args: Any, **kwargs: Any) -> None:
    raise URLError("no network")


def test_imagenet_weights_without_network_name_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(WeightsError, match=r"put the file at .*resnet18-f37072fd\.pth.*--weights random"):
        load_backbone("resnet18", "imagenet")


def test_imagenet_weights_are_read_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resnet18: State, sha: str
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    (tmp_path / "checkpoints").mkdir()
    torch.save(resnet18, tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    loaded = load_backbone("resnet18", "imagenet")
    assert (loaded.sha256, loaded.source) == (sha, "imagenet")


def test_a_cache_folder_that_cannot_be_created_is_a_weights_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "file"))
    with pytest.raises(WeightsError, match="cannot be downloaded"):
        load_backbone("resnet18", "imagenet")
