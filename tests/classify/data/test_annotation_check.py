"""Classes and splits without pairs are refused before weights are loaded, and before anything is extracted."""

import json
from pathlib import Path
from typing import Any

import pytest

from classify.data.annotation_check import check_annotations, check_planned
from classify.data.inputs import find_or_extract
from classify.pipeline import train
from configs.classes import DEFAULT_CLASSES, PairClass
from configs.errors import DataError, SplitError
from configs.resnet_stage2_config import ResNetStage2Config
from configs.train_options import TrainOptions
from extract.backbones.weights import load_backbone
from extract.units.plan import plan_units
from store.format.manifest import Selection
from tests.factories import LABELS, small_config
from tests.jrdb_folder import person, read_labels, write_image, write_labels

SCENES = ("a", "b", "c", "d")


def write_data(root: Path, labels: dict[str, tuple[str, ...]], frames: int = 2) -> Path:
    """Frames of one pair per scene; frame i of a scene has label i of `labels[scene]`, by turns."""
    for scene, of_scene in labels.items():
        content = {
            f"{frame}.jpg": [person(1, mentions={2: [of_scene[frame % len(of_scene)]]}), person(2, (90, 10, 12, 30))]
            for frame in range(frames)
        }
        write_labels(root, scene, content)
        for frame in content:
            write_image(root, scene, frame)
    return root


def config_for(data: Path, **settings: Any) -> ResNetStage2Config:
    """A frozen run whose weights file does not exist: whoever loads it first gets another error."""
    values = {"data_path": str(data), "freeze_backbone": True, "weights": str(data / "missing.pth")} | settings
    return small_config(data / "run", **values)


def refusal(config: ResNetStage2Config) -> str:
    with pytest.raises(DataError) as refused:
        train(config, TrainOptions(store=str(Path(config.data_path) / "store")))
    assert not (Path(config.data_path) / "store").exists()
    assert not (Path(config.data_path) / "run").exists()
    return str(refused.value)


def test_r9_a_misspelt_class_is_refused_before_weights_are_loaded(tmp_path: Path) -> None:
    data = write_data(tmp_path, dict.fromkeys(SCENES, LABELS[:2]))
    classes = (DEFAULT_CLASSES[0], PairClass("Stand", ("standing togehter",)))
    text = refusal(config_for(data, classes=classes))
    assert (
        "class 'Stand': no pair in the data has the label 'standing togehter'; did you mean 'standing together'" in text
    )


def test_r9_a_misspelt_scene_is_refused_before_weights_are_loaded(tmp_path: Path) -> None:
    data = write_data(tmp_path, dict.fromkeys(("a", "b", "c", "scene-d"), LABELS[:2]))
    split = {"train": ["a", "b"], "val": ["c"], "test": ["scene-D"]}
    settings = config_for(data).to_dict() | {"split": split}
    assert "for 'scene-D', did you mean 'scene-d'" in refusal(ResNetStage2Config.from_dict(settings))


@pytest.mark.parametrize("others", [(), ("0",), ("z", "zz")])  # scenes in no split, which have all labels
def test_r9_a_split_without_a_labelled_pair_is_refused_before_weights_are_loaded(
    tmp_path: Path, others: tuple[str, ...]
) -> None:
    data = write_data(tmp_path, dict.fromkeys((*SCENES, *others), LABELS[:2]) | {"d": ("conversation",)})
    assert "the test split has no pair of a configured class" in refusal(config_for(data))


def test_r9_a_train_split_of_one_class_is_refused_before_weights_are_loaded(tmp_path: Path) -> None:
    data = write_data(tmp_path, dict.fromkeys("ab", LABELS[:1]) | dict.fromkeys("cd", LABELS[:2]))
    assert "the train split has pairs of class 'Walking Together' only" in refusal(config_for(data))


@pytest.mark.parametrize("interval", [1, 2])
def test_r9_what_only_the_frame_interval_loses_is_refused_before_the_extraction(tmp_path: Path, interval: int) -> None:
    data = write_data(tmp_path, dict.fromkeys(SCENES, LABELS[:2]))  # each second frame has the second label
    classes = tuple(PairClass(label, (label,)) for label in LABELS[:2])
    config = config_for(data, classes=classes, frame_interval=interval, weights="random")
    check_annotations(config)
    options = TrainOptions(store=str(data / "store"))
    if interval == 1:
        find_or_extract(config, options, load_backbone("resnet18", "random"))
    else:
        with pytest.raises(SplitError, match="'standing together' at frame interval 2"):
            find_or_extract(config, options, load_backbone("resnet18", "random"))
    assert (data / "store").exists() == (interval == 1)


@pytest.mark.parametrize("ascii_only", [True, False])
def test_labels_are_found_however_json_spells_them(tmp_path: Path, ascii_only: bool) -> None:
    labels = ('zusammen "gehen"', "zusammen stehen \u00fc")
    data = write_data(tmp_path, dict.fromkeys(SCENES, labels))
    classes = tuple(PairClass(label, (label,)) for label in labels)
    for scene in SCENES:
        text = json.dumps({"labels": read_labels(data, scene)}, ensure_ascii=ascii_only)
        path = write_labels(data, scene, {})
        path.write_text(text.replace("zusammen stehen", "zusammen\\u0020stehen"))
    check_annotations(config_for(data, classes=classes))


def test_the_plan_has_the_classes_that_the_tables_have(tmp_path: Path) -> None:
    data = write_data(tmp_path, dict.fromkeys(SCENES, LABELS[:2]))
    units = plan_units(data, Selection(1, "all"), crops=2)  # several units for each scene
    assert len(units) > len(SCENES)
    check_planned(units, config_for(data))
    with pytest.raises(SplitError, match="no pair in the data has the label 'sitting together'"):
        check_planned(units, config_for(data, classes=(*DEFAULT_CLASSES[:2], PairClass("Sit", ("sitting together",)))))
