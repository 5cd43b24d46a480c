"""--panorama of every command: ordinary photos never wrap, and panoramas give the same numbers as before."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from classify.export.classifier import pair_spatial
from classify.report.overlay import draw_frame
from extract.annotations.spatial import spatial_features
from extract.backbones.weights import LoadedBackbone, load_backbone
from store.reader import load_store
from tests.jobs import QUICK, SCENES, extract_store, run_cli
from tests.jrdb_folder import person, write_image, write_labels

WIDTH, HEIGHT = 128, 96


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of photos; in each frame person 3 is at the left edge, person 4 at the right edge."""
    root = tmp_path_factory.mktemp("photos")
    labels = ("walking together", "standing together", "sitting together")
    for number, scene in enumerate(SCENES):
        people: dict[str, Any] = {}
        for frame in range(3):
            name = f"{frame}.jpg"
            write_image(root, scene, name, seed=10 * number + frame, size=(WIDTH, HEIGHT))
            people[name] = [
                person(1, (40, 20, 16, 40), {2: [labels[frame]]}),
                person(2, (64, 20, 16, 40)),
                person(3, (1, 20, 16, 40), {4: [labels[frame]]}),
                person(4, (WIDTH - 14, 20, 16, 40)),
            ]
        write_labels(root, scene, people)
    return root


@pytest.fixture
def loaded() -> LoadedBackbone:
    return load_backbone("hog", "none")


def test_r12_the_store_of_photos_has_no_wrapped_distances(photos: Path, loaded: LoadedBackbone, tmp_path: Path) -> None:
    stores = {}
    for panorama in ("auto", "no", "yes"):
        extract_store(loaded, photos, tmp_path / panorama, backbone="hog", panorama=panorama)
        stores[panorama] = load_store(tmp_path / panorama)
    np.testing.assert_array_equal(stores["auto"].visual, stores["no"].visual)
    assert not np.array_equal(stores["auto"].visual, stores["yes"].visual)
    apart = stores["auto"].tables.spatial[1::2, 2]  # the pair at both edges
    np.testing.assert_allclose(apart, (WIDTH - 15) / WIDTH, rtol=1e-6)
    np.testing.assert_allclose(stores["yes"].tables.spatial[1::2, 2], 15 / WIDTH, rtol=1e-6)


@pytest.mark.usefixtures("quick_baselines", "no_plots")
def test_r12_training_and_prediction_use_the_setting(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = ("--data_path", photos, *QUICK, "--epochs", "1", "--visual_dim", "8")
    assert run_cli("train", *run, "--freeze_backbone", "--checkpoint_dir", "cached") == 0
    assert "the left and right edges of 0 of 12 images touch" in capsys.readouterr().out
    for panorama, touching in (("auto", 0), ("yes", 12)):
        assert run_cli("train", *run, "--panorama", panorama, "--checkpoint_dir", panorama) == 0
        assert f"the left and right edges of {touching} of 12 images touch" in capsys.readouterr().out

    def pairs(run_folder: str, *options: str) -> int:
        out = tmp_path / "predicted.json"
        out.unlink(missing_ok=True)
        arguments = ("--data_path", photos, "--out", out, "--device", "cpu", "--pairs", "near", "--json", *options)
        assert run_cli("predict", run_folder, *arguments) == 0
        return int(json.loads(capsys.readouterr().out)["pairs"])

    assert pairs("auto") < pairs("auto", "--panorama", "yes")  # near across the seam
    assert pairs("yes") == pairs("auto", "--panorama", "yes")  # as in training

    def evaluated(*options: str) -> Any:
        arguments = ("--data_path", photos, "--device", "cpu", "--json", *options)
        assert run_cli("evaluate", "auto", *arguments) == 0
        return json.loads(capsys.readouterr().out)["loss"]

    assert evaluated() == evaluated("--panorama", "no")
    assert evaluated() != evaluated("--panorama", "yes")


def test_r12_boxes_and_lines_are_not_drawn_across_the_edges_of_a_photo() -> None:
    boxes, pair = np.array([[1.0, 20, 16, 40], [WIDTH - 14.0, 20, 16, 40]]), np.array([[0, 1]])
    black = torch.zeros((3, HEIGHT, WIDTH), dtype=torch.uint8)

    def drawn_columns(panorama: str) -> set[int]:
        drawn = draw_frame(black.clone(), boxes, pair, torch.tensor([[1.0]]), ("x",), panorama)
        return set(torch.nonzero(drawn[:, 41].sum(0)).flatten().tolist())  # row 41: the line is in row 39 to 41

    assert set(range(70, 90)) <= drawn_columns("auto")  # the line crosses the middle
    assert not set(range(70, 90)) & drawn_columns("yes")  # the label takes the first 64 columns


@pytest.mark.parametrize("panorama", ["auto", "yes", "no"])
def test_r12_the_exported_spatial_features_equal_numpys(panorama: str) -> None:
    box_a, box_b = np.array([[1.0, 20, 16, 40]] * 2), np.array([[590.0, 30, 16, 30]] * 2)
    size, people = np.array([[600, 400], [600, 150]]), np.array([2, 3])
    actual = pair_spatial(*map(torch.from_numpy, (box_a, box_b, size, people)), panorama)
    np.testing.assert_array_equal(actual.numpy(), spatial_features(box_a, box_b, size, people, panorama))
