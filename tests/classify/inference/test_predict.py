"""Prediction: the pairs of each frame that are labelled, near or all, each with probabilities that sum to 1."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classify.inference.pairing import NEAR
from classify.inference.predict import PredictOptions, predict
from configs.errors import ConfigError, DataError
from extract.annotations.spatial import spatial_features
from tests.factories import make_random_run
from tests.jrdb_folder import SIZE, person, read_labels, write_folder, write_labels, write_scene

SCENE = "cafe"


def predict_pairs(folder: Path, data: Path, pairing: str | None) -> tuple[dict[str, Any], list[tuple[str, Any, Any]]]:
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


def write_people(root: Path, *mentions: dict[int, list[str]]) -> Path:
    """A frame with a row of people who touch, each with the pairs `mentions`."""
    people = [person(index, (10 + 12 * index, 10, 12, 30), pairs) for index, pairs in enumerate(mentions)]
    write_scene(root, SCENE, {"000000.jpg": people})
    return root


def test_r11_near_pairs_are_predicted_where_no_pair_is_labelled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_people(tmp_path / "data", {}, {}, {})
    with caplog.at_level("INFO", "stage2"):
        counts, _ = predict_pairs(tmp_path, data, None)
    assert counts["pairs"] == predict_pairs(tmp_path, data, "near")[0]["pairs"] > 0
    assert "no pair in the data is labelled" in caplog.text


def test_r11_a_label_without_an_annotated_partner_is_not_a_labelled_pair(tmp_path: Path) -> None:
    data = write_people(tmp_path / "data", {9: ["walking together"]}, {}, {})
    assert predict_pairs(tmp_path, data, None)[0]["pairs"] > 0


def test_r11_labelled_pairs_stay_the_default_where_some_are_labelled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = write_people(tmp_path / "data", {1: ["walking together"]}, {}, {})
    with caplog.at_level("INFO", "stage2"):
        _, pairs = predict_pairs(tmp_path, data, None)
    assert [(one["label_id"], pair["pair"]) for _, one, pair in pairs] == [("pedestrian:0", "pedestrian:1")]
    assert "the 1 labelled pairs" in caplog.text


def test_r11_labelled_pairs_that_do_not_exist_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--pairs near"):
        predict_pairs(tmp_path, write_people(tmp_path / "data", {}, {}), "labelled")


def test_r11_data_without_a_person_is_an_error_with_the_first_odd_id(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data", (SCENE,), frames=1)
    write_labels(data, SCENE, {"000000.jpg": [{**person(3), "label_id": "person:3"}]})
    with pytest.raises(DataError, match=r"pedestrian:<number>.*'person:3' in frame 000000.jpg of scene cafe"):
        predict_pairs(tmp_path, data, None)
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("interval", [0, -1, 10**9])
def test_r20_a_frame_interval_out_of_range_is_refused(tmp_path: Path, data: Path, interval: int) -> None:
    run, _ = make_random_run(tmp_path)
    with pytest.raises(ConfigError, match=f"frame_interval is {interval}; it must be between 1 and"):
        predict(run, data, tmp_path / "out.json", PredictOptions(frame_interval=interval, device="cpu"))
    assert not (tmp_path / "out.json").exists()
