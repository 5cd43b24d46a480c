"""Checkpoints: loading returns what was saved, and refuses everything else."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from classify.model.checkpoint import CACHED, RunInfo, build_model, load_checkpoint, load_state, save_checkpoint
from classify.model.head import Stage2Model, build_head
from configs.errors import CheckpointError, StorageError
from tests.factories import small_config

INFO = RunInfo(CACHED, small_config(), 16, {"name": "tiny"}, "f", (0.5, 1.0, 1.5))
RECORD = {"epoch": 3, "val_mpca": 0.5}


def model() -> Stage2Model:
    torch.manual_seed(0)
    return Stage2Model(nn.Identity(), build_head(small_config(), 16))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "best_model.pth"
    save_checkpoint(path, INFO, model(), RECORD)
    return path


def content(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = torch.load(path, weights_only=True)
    return values


def test_loading_returns_what_was_saved(written: Path) -> None:
    loaded = load_checkpoint(written)
    assert (loaded.info, loaded.epoch, loaded.metrics, loaded.extra) == (INFO, 3, RECORD, {})
    actual, expected = build_model(loaded, nn.Identity()).state_dict(), model().state_dict()
    assert all(torch.equal(actual[key], expected[key]) for key in expected)
    assert list(written.parent.iterdir()) == [written]


def test_the_same_model_is_saved_as_the_same_bytes(written: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "best_model.pth", INFO, model(), RECORD)
    assert (tmp_path / "best_model.pth").read_bytes() == written.read_bytes()


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "last.pth", INFO, model(), RECORD)

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(StorageError):
        save_checkpoint(tmp_path / "last.pth", INFO, model(), RECORD | {"epoch": 4})
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "last.pth").epoch == 3
    assert [path.name for path in tmp_path.iterdir()] == ["last.pth"]


def _in_model(value: Any) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        values["model"]["head.classify.bias"] = value

    return change


def _set(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        values[name] = value

    return change


def _in_config(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        values["config"][name] = value

    return change


@pytest.mark.parametrize(
    ("change", "field"),
    [
        *((lambda values, name=name: values.pop(name), name) for name in ("kind", "model", "config", "class_weight")),
        (_set("extra", 1), "extra"),
        (_set("format", 99), "format"),
        (_set("format", True), "format"),
        (_set("kind", "sideways"), "kind"),
        (_set("feature_dim", 0), "feature_dim"),
        (_set("feature_dim", "16"), "feature_dim"),
        (_set("feature_dim", 3_000_000), "feature_dim is 3000000, but head.visual_shift has 16"),
        (_set("feature_dim", 10**15), "feature_dim is 1000000000000000"),
        (_in_config("visual_feature_dim", 65536), "head.project.weight"),
        (_in_config("hidden_dim", 65536), "head.relation.weight"),
        (_in_model(torch.zeros(1).expand(3)), "declares"),
        (_in_model(torch.zeros(6)[:3]), "head.classify.bias"),
        (_in_model(torch.zeros(1).expand(3 * 2**30)), "declares"),
        (_set("classes", ["Walking Together"]), "classes"),
        (_set("config", {"epochs": -1}), "epochs"),
        (_set("config", {"surprise": 1}), "surprise"),
        (_set("config", {1: 2}), "config"),
        (_set("class_weight", [1.0]), "class_weight"),
        (_set("class_weight", [1.0, float("nan"), 1.0]), "class_weight"),
        (_set("class_weight", [1.0, float("inf"), 1.0]), "class_weight"),
        (_in_model(torch.tensor([0.0, float("nan"), 0.0])), "head.classify.bias"),
        (_in_model(torch.zeros(3).to_sparse()), "head.classify.bias"),
        (_in_model(torch.zeros(3, device="meta")), "head.classify.bias"),
        (_in_model("three"), "head.classify.bias"),
    ],
)
def test_h1_a_wrong_field_is_named(
    written: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], field: str
) -> None:
    values = content(written)
    change(values)
    torch.save(values, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=field):
        load_checkpoint(tmp_path / "c.pth")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("head.classify.bias", torch.zeros(4)),
        ("head.classify.bias", torch.zeros(3, dtype=torch.float64)),
        ("head.surprise", torch.zeros(3)),
        ("head.classify.bias", None),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(written: Path, key: str, value: torch.Tensor | None) -> None:
    state = dict(load_checkpoint(written).model)
    state.pop(key, None)
    if value is not None:
        state[key] = value
    with pytest.raises(CheckpointError, match=key):
        load_state(model(), state, "c.pth")


@pytest.mark.parametrize("value", [[1, 2], torch.zeros(3), 7, {}])
def test_other_torch_files_are_refused(tmp_path: Path, value: Any) -> None:
    torch.save(value, tmp_path / "c.pth")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "c.pth")


def test_a_best_model_cannot_be_resumed(written: Path) -> None:
    with pytest.raises(CheckpointError, match="optimizer"):
        load_checkpoint(written, resume=True)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.pth"):
        load_checkpoint(tmp_path / "nowhere.pth")


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"model": Trap()}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "c.pth")
    assert not (tmp_path / "sprung").exists()


def test_damage_is_refused_or_has_no_effect(written: Path, tmp_path: Path) -> None:
    data, intact = written.read_bytes(), load_checkpoint(written).model
    rng = np.random.default_rng(0)
    path = tmp_path / "c.pth"
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), rng.integers(1, 4)):
            damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged if rng.random() < 0.7 else damaged[: rng.integers(len(data))])
        try:
            state = load_checkpoint(path).model
        except CheckpointError:
            refused += 1
        else:  # a byte that is not read, such as padding
            assert state.keys() == intact.keys()
            assert all(torch.equal(state[key], intact[key]) for key in intact)
    assert refused > 75


@pytest.mark.timeout(20)
def test_h4_a_fifo_as_checkpoint_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "best_model.pth")
    with pytest.raises(CheckpointError, match="not a regular file"):
        load_checkpoint(tmp_path / "best_model.pth")


def test_h3_a_link_as_checkpoint_is_not_followed(written: Path, tmp_path: Path) -> None:
    (tmp_path / "best_model.pth").symlink_to(written)
    with pytest.raises(CheckpointError, match="is a link"):
        load_checkpoint(tmp_path / "best_model.pth")


def test_loading_draws_no_random_numbers(written: Path) -> None:
    torch.manual_seed(7)
    load_checkpoint(written)
    assert torch.initial_seed() == 7
    drawn = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(1), drawn)
