"""Checks classes and split on the annotations, before weights are loaded and before features are extracted."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from classify.data.class_table import check_class_labels, check_train_classes
from classify.data.selection import check_scenes, select_splits
from configs.resnet_stage2_config import ResNetStage2Config
from configs.splits import SPLIT_NAMES
from extract.annotations.jrdb import LABELS, read_annotations, scene_names
from extract.units.plan import PlannedUnit, plan_units
from store.format.manifest import Selection
from store.format.shard import Shard, join_tables


def check_annotations(config: ResNetStage2Config) -> None:
    """Checks that each split has a scene, and that the labels of its classes occur in the annotations.

    Files are searched for the labels as text, which takes a hundredth of the time of parsing them. They are parsed only
    if a label is not found in this way.

    Raises:
        DataError: the annotations cannot be read.
        SplitError: a split has no scene, or as `check_planned`.
    """
    data_path = Path(config.data_path)
    known = scene_names(data_path)
    for name in SPLIT_NAMES:
        check_scenes(known, config.split, name)
    texts = [tuple(text for label in one.labels for text in _as_json(label)) for one in config.classes]
    has_class = np.array([_find(data_path, scene, texts) for scene in known])  # (scenes, C)
    classes = {name: has_class[np.isin(known, config.split.scenes(name))].any(axis=0).sum() for name in SPLIT_NAMES}
    if not (has_class.any(axis=0).all() and all(classes.values()) and classes["train"] > 1):
        check_planned(plan_units(data_path, Selection(config.frame_interval, "paired")), config)


def check_planned(units: Sequence[PlannedUnit], config: ResNetStage2Config) -> None:
    """Checks that the classes and splits of a run have pairs in planned units, whose images nobody has read yet.

    Raises:
        SplitError: a split has no pair, a class has no pair (see `check_class_labels`), or the train split has a single
            class.
    """
    scenes = tuple(dict.fromkeys(unit.scene for unit in units))
    tables = join_tables(scenes, [_without_images(unit) for unit in units])
    check_class_labels(tables, config)
    check_train_classes(select_splits(tables, config)["train"], config)


def _as_json(label: str) -> tuple[bytes, ...]:
    """The usual ways in which a JSON file contains `label`."""
    return json.dumps(label).encode(), json.dumps(label, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _find(data_path: Path, scene: str, texts: Sequence[tuple[bytes, ...]]) -> list[bool]:
    """For each class, whether the annotations of `scene` contain one of its texts."""
    content = read_annotations(data_path / LABELS / f"{scene}.json")
    return [any(text in content for text in of_class) for of_class in texts]


def _without_images(unit: PlannedUnit) -> Shard:
    no_features, no_checksums = np.empty((0, 0), np.float32), np.full(unit.frames, "", np.str_)
    return Shard.from_tables(
        unit.tables,
        scene=unit.scene,
        visual=no_features,
        visual_flipped=None,
        frame_sha256=no_checksums,
        skipped=unit.skipped,
    )
