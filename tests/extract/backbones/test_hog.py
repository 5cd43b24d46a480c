"""HOG equals a pixel-by-pixel float64 computation, has the expected invariances, and works in all commands."""

import json
from math import atan2, hypot, pi, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.errors import ConfigError, WeightsError
from configs.resnet_stage2_config import ResNetStage2Config
from extract.backbones.forward import frozen_forward
from extract.backbones.hog import Hog
from extract.backbones.weights import load_backbone
from tests.jobs import QUICK, SCENES, run_cli
from tests.jrdb_folder import write_folder

hog = Hog()


def crops(count: int, size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def cell_votes(crop: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Returns the votes (7, 7, 9) of a crop (3, S, S) in [0, 255], computed pixel by pixel."""
    size = crop.shape[1]
    cells, side = np.zeros((7, 7, 9)), size / 7
    for y in range(size):
        for x in range(size):
            best = (0.0, 0.0, 0.0)
            for channel in crop:
                dx = channel[y, min(x + 1, size - 1)] - channel[y, max(x - 1, 0)]
                dy = channel[min(y + 1, size - 1), x] - channel[max(y - 1, 0), x]
                best = max(best, (hypot(dx, dy), dx, dy), key=lambda entry: entry[0])
            magnitude, dx, dy = best
            bin_, share = divmod((atan2(dy, dx) % pi) / pi * 9 - 0.5, 1)
            row, down = divmod((y + 0.5) / side - 0.5, 1)
            column, right = divmod((x + 0.5) / side - 0.5, 1)
            for r, vote_r in ((int(row), 1 - down), (int(row) + 1, down)):
                for c, vote_c in ((int(column), 1 - right), (int(column) + 1, right)):
                    if 0 <= r < 7 and 0 <= c < 7:
                        cells[r, c, int(bin_) % 9] += magnitude * vote_r * vote_c * (1 - share)
                        cells[r, c, (int(bin_) + 1) % 9] += magnitude * vote_r * vote_c * share
    return cells / side**2 / 255


def brute_force(crop: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    cells = cell_votes(crop)
    blocks = []
    for row in range(6):
        for column in range(6):
            block = cells[row : row + 2, column : column + 2].reshape(-1)
            block = np.minimum(block / sqrt(block @ block + 1e-6), 0.2)
            blocks.append(block / sqrt(block @ block + 1e-6))
    return np.concatenate(blocks)


@pytest.mark.parametrize("size", [32, 47, 112])
def test_features_equal_a_pixel_by_pixel_computation(size: int) -> None:
    noise = crops(1, size)
    smooth = torch.nn.functional.interpolate(crops(1, 8, 1).float(), (size, size), mode="bicubic").clamp(0, 255).byte()
    for crop in (noise, smooth):
        expected = brute_force(crop[0].double().numpy())
        assert np.abs(hog(crop)[0].numpy() - expected).max() < 2e-6


def test_edges_of_one_orientation_vote_for_its_bins() -> None:
    ramp = (torch.arange(56) * 4).to(torch.uint8).expand(1, 3, 56, 56)  # brightness increases to the right: angle 0
    across = hog(ramp).reshape(36, 4, 9)
    assert torch.all(across[..., 1:8] == 0)  # angle 0 is between the last bin and the first
    assert torch.all(across[..., 0] > 0)
    torch.testing.assert_close(across[..., 0], across[..., 8])
    down = hog(ramp.transpose(2, 3)).reshape(36, 4, 9)
    assert torch.all(down[..., 4] > 0)  # 90 degrees is the centre of the fifth bin
    assert torch.all(down[..., [0, 1, 2, 6, 7, 8]] == 0)


def test_a_uniform_crop_gives_zeros_and_brightness_does_not_matter() -> None:
    assert torch.all(hog(torch.full((2, 3, 48, 48), 77, dtype=torch.uint8)) == 0)
    given = crops(2, 48) // 2
    torch.testing.assert_close(hog(given + 100), hog(given))
    torch.testing.assert_close(
        hog(given * 2), hog(given), atol=2e-3, rtol=0
    )  # contrast matters only because of EPSILON


def test_a_mirrored_crop_has_mirrored_features() -> None:
    given = crops(2, 49)
    plain = hog(given).reshape(2, 6, 6, 2, 2, 9)  # block row, block column, cell row, cell column, orientation
    torch.testing.assert_close(hog(given.flip(3)).reshape(2, 6, 6, 2, 2, 9), plain.flip(2, 4, 5), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [48, 47, 100])
def test_frozen_forward_gives_a_crop_the_same_bits_in_each_batch(size: int) -> None:
    forward = frozen_forward(Hog(), size, torch.device("cpu"), "float32")
    given = crops(33, size).contiguous(memory_format=torch.channels_last)
    whole = forward(given)
    assert whole.shape == (33, hog.out_dim)
    assert all(torch.equal(forward(given[row : row + 1])[0], whole[row]) for row in range(33))
    assert all(torch.equal(forward(given[2:stop]), whole[2:stop]) for stop in range(3, 33))


def test_hog_has_no_parameters_and_no_weights() -> None:
    loaded = load_backbone("hog", "imagenet")
    assert loaded.source == "none"
    assert not list(loaded.backbone.parameters())
    assert loaded.sha256 == load_backbone("hog", "random").sha256
    with pytest.raises(WeightsError, match="hog has no weights"):
        load_backbone("hog", "some.pth")
    with pytest.raises(ConfigError, match="--freeze_backbone"):
        ResNetStage2Config(backbone_name="hog")
    assert ResNetStage2Config(backbone_name="hog", freeze_backbone=True).backbone_name == "hog"


def test_all_commands_work_with_hog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_folder(tmp_path / "data", SCENES, frames=3, people=6)
    options = ("--data_path", data, *QUICK[2:], "--backbone", "hog")
    assert run_cli("extract", *options, "--store", "h.store", "--json") == 0
    info = json.loads(capsys.readouterr().out)
    assert (info["visual_dim"], info["weights"], info["recipe"]["backbone"]) == (1296, "none", "hog")
    assert "orientations" in info["recipe"]["layer"]
    shard = max(Path("h.store").rglob("*.h5"), key=lambda path: path.stat().st_size)
    original = shard.read_bytes()
    shard.unlink()
    assert run_cli("store", "repair", "h.store", "--data_path", data, "--device", "cpu") == 0
    assert shard.read_bytes() == original
    assert run_cli("train", *options, "--epochs", "1", "--store", "h.store") == 2
    assert "--freeze_backbone" in capsys.readouterr().err
    head = ("--freeze_backbone", "--epochs", "1", "--store", "h.store", "--checkpoint_dir", "run")
    assert run_cli("train", *options, *head) == 0
    capsys.readouterr()
    matrices = []
    for where in (("--store", "h.store"), ("--data_path", data)):
        assert run_cli("evaluate", "run", *where, "--json", "--device", "cpu") == 0
        matrices.append(json.loads(capsys.readouterr().out)["confusion_matrix"])
    assert matrices[0] == matrices[1]
    assert run_cli("predict", "run", "--data_path", data, "--out", "answers.json", "--device", "cpu") == 0
    assert run_cli("report", "run") == 0
    assert "<th>weights</th><td><code>none</code>" in Path("run/report.html").read_text()
    assert run_cli("finetune", "--from", "run", "--checkpoint_dir", "tuned") == 2
    assert "no trainable parameters" in capsys.readouterr().err
