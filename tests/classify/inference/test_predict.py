"""Prediction: the pairs of each frame that are labelled, near or all, each with probabilities that sum to 1."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classify.inference.predict import NEAR, PredictOptions, predict
from extract.annotations.spatial import spatial_features
from tests.factories import make_random_run
from tests.jrdb_folder import SIZE, person, read_labels, write_folder, write_labels

SCENE = "cafe"


def predict_pairs(folder: Path, data: Path, pairing: str) -> tuple[dict[str, int], list[tuple[str, Any, Any]]]:
    """The counts, and for each pair its frame, the annotation of its first person and its own entry."""
    run, _ = make_random_run(folder)
    options = PredictOptions(pairing, device="cpu", overwrite=True)
    counts = predict(run, data, folder / "out.json", options)
    frames = json.loads((folder / "out.json").read_text())["scenes"][SCENE]["labels"]
    pairs = [(frame, one, pair) for frame, people in frames.items() for one in people for pair in one["H-interaction"]]
    assert counts["pairs"] == len(pairs)
    return counts, pairs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames with 5 people each, and a frame with a single person."""
    folder = write_folder(tmp_path_factory.mktemp("data"), (SCENE,), frames=4, people=5)
    frames = read_labels(folder, SCENE)
    frames[min(frames)] = [person(0)]
    write_labels(folder, SCENE, frames)
    return folder


def test_all_pairs_of_each_frame_are_predicted(tmp_path: Path, data: Path) -> None:
    counts, pairs = predict_pairs(tmp_path, data, "all")
    assert (counts["frames"], counts["persons"], counts["pairs"]) == (4, 16, 3 * 10)
    assert len({(frame, one["label_id"], pair["pair"]) for frame, one, pair in pairs}) == 3 * 10
    for _, _, pair in pairs:
        assert sum(pair["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert max(pair["probabilities"], key=pair["probabilities"].get).lower() in pair["inter_labels"]


def test_near_pairs_are_those_within_the_distance(tmp_path: Path, data: Path) -> None:
    def center_distance(one: Any, pair: Any) -> float:
        boxes = np.array([[one["box"]], [pair["box_pair"]]], float)
        return float(spatial_features(*boxes, np.array([SIZE]), np.array([5]))[0, 5])

    _, pairs = predict_pairs(tmp_path, data, "all")
    near = [(frame, one["label_id"], pair["pair"]) for frame, one, pair in pairs if center_distance(one, pair) <= NEAR]
    _, predicted = predict_pairs(tmp_path, data, "near")
    assert [(frame, one["label_id"], pair["pair"]) for frame, one, pair in predicted] == near
    assert 0 < len(near) < len(pairs)


def test_labelled_pairs_are_those_of_the_annotations(tmp_path: Path, data: Path) -> None:
    _, pairs = predict_pairs(tmp_path, data, "labelled")
    annotated = {
        (frame, frozenset((one["label_id"], pair["pair"])))
        for frame, people in read_labels(data, SCENE).items()
        for one in people
        for pair in one["H-interaction"]
    }
    assert {(frame, frozenset((one["label_id"], pair["pair"]))) for frame, one, pair in pairs} == annotated
    assert len(pairs) == len(annotated)
