"""Configurations accept only known keys and allowed values; splits that share a scene are refused."""

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs import errors
from configs.classes import DEFAULT_CLASSES, PairClass, check_classes, class_of
from configs.errors import ConfigError, SplitError, Stage2Error
from configs.extraction_config import ExtractionConfig
from configs.options import read_toml
from configs.presets import PRESETS, preset
from configs.resnet_stage2_config import ResNetStage2Config
from configs.splits import JRDB_SPLIT, SPLIT_NAMES, SceneSplit


def test_the_shipped_split_is_disjoint_and_names_26_of_the_27_scenes_once() -> None:
    scenes = [scene for name in SPLIT_NAMES for scene in JRDB_SPLIT.scenes(name)]
    assert [len(JRDB_SPLIT.scenes(name)) for name in SPLIT_NAMES] == [19, 5, 3]
    assert len(scenes) == len(set(scenes))
    assert "stlc-111-2019-04-19_0" in JRDB_SPLIT.train
    assert "stlc-111-2019-04-19_0" not in JRDB_SPLIT.test


def test_a_shared_scene_is_refused_and_both_splits_named() -> None:
    with pytest.raises(SplitError, match=r"one, two in both train and test"):
        SceneSplit(train=("one", "two", "x"), val=("three",), test=("two", "one"))
    with pytest.raises(SplitError, match="both val and test"):
        SceneSplit(train=(), val=("one",), test=("one",))


def test_a_scene_twice_in_one_split_is_refused() -> None:
    with pytest.raises(SplitError, match="the val split lists one twice"):
        SceneSplit(train=("a",), val=("one", "one"), test=())


SCENES = st.lists(st.sampled_from("abcdef"), max_size=4).map(tuple)


@given(SCENES, SCENES, SCENES)
def test_a_split_is_valid_exactly_if_no_scene_is_listed_twice(
    train: tuple[str, ...], val: tuple[str, ...], test: tuple[str, ...]
) -> None:
    everything = train + val + test
    if len(set(everything)) == len(everything):
        assert SceneSplit(train, val, test).scenes("val") == val
    else:
        with pytest.raises(SplitError):
            SceneSplit(train, val, test)


def test_classes_by_label_in_the_order_of_the_classes() -> None:
    assert class_of(("sitting together",), DEFAULT_CLASSES) == 2
    assert class_of(("conversation", "walking together"), DEFAULT_CLASSES) == 0
    assert class_of(("sitting together", "standing together"), DEFAULT_CLASSES) == 1
    assert class_of(("conversation",), DEFAULT_CLASSES) == -1
    assert class_of((), DEFAULT_CLASSES) == -1


@pytest.mark.parametrize(
    ("classes", "word"),
    [
        ((), r"\[classes\] is empty"),
        ((PairClass("A", ("x",)), PairClass("A", ("y",))), "class 'A' twice"),
        ((PairClass("A", ("x",)), PairClass("B", ("x",))), "label 'x' twice"),
        ((PairClass("A", ()),), "'A' has no labels"),
    ],
)
def test_unusable_classes_are_refused(classes: tuple[PairClass, ...], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        check_classes(classes)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("backbone_name", "resnet19"),
        ("fusion_strategy", "max"),
        ("balance", "both"),
        ("device", "tpu"),
        ("optimizer", "sgd"),
        ("crop_size", 31),
        ("crop_size", 112.0),
        ("crop_size", True),
        ("crop_size", "112"),
        ("epochs", 0),
        ("dropout", math.nan),
        ("learning_rate", math.inf),
        ("learning_rate", "1e-4"),
        ("freeze_backbone", 1),
        ("seed", -1),
        ("seed", 2**63),
        ("classes", "walking"),
        ("split", {"train": []}),
    ],
)
def test_a_wrong_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        ResNetStage2Config(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("backbone", "vgg"), ("crop_size", 8), ("dtype", "int8"), ("views", 3), ("views", True)),
        *(("max_skipped", 1.01), ("max_skipped", math.nan), ("batch_size", -1), ("num_workers", -1)),
        *(("frame_interval", 0), ("persons", "some"), ("on_error", "ignore"), ("update", "yes")),
        *(("precision", "float64"), ("data_path", None)),
    ],
)
def test_a_wrong_extraction_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        ExtractionConfig(**{name: value})


def test_a_configuration_survives_its_dict() -> None:
    classes = (*DEFAULT_CLASSES, PairClass("Talking", ("conversation",)))
    config = ResNetStage2Config(classes=classes, split=SceneSplit(("a",), ("b",), ("c",)), dropout=0.5, epochs=3)
    assert ResNetStage2Config.from_dict(config.to_dict()) == config
    assert ResNetStage2Config.from_dict({}) == ResNetStage2Config()


@pytest.mark.parametrize(
    "values",
    [
        {"epoch": 3},
        {"classes": ["a"]},
        {"classes": {"A": "a"}},
        {"classes": {"A": [1]}},
        {"classes": {}},
        {"split": {"train": [], "val": []}},
        {"split": {"train": [], "val": [], "test": [], "more": []}},
        {"split": {"train": "a", "val": [], "test": []}},
        {"split": []},
    ],
)
def test_unknown_or_malformed_keys_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ResNetStage2Config.from_dict(values)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from([item.name for item in fields(ResNetStage2Config)]) | st.text(max_size=8)


@given(st.dictionaries(KEYS, JSON, max_size=4))
def test_any_dict_makes_a_configuration_or_a_typed_error(values: dict[str, Any]) -> None:
    try:
        ResNetStage2Config.from_dict(values)
    except (ConfigError, SplitError) as error:
        assert str(error)


@pytest.mark.parametrize("content", [b"a = ", b"\xff\xfe", b"a = 1\na = 2", b"\x00", b"a = " + b"[" * 5000])
def test_a_broken_toml_is_a_configuration_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"run\.toml"):
        read_toml(path)


def test_a_missing_toml_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path / "none.toml")


@pytest.mark.parametrize("name", [item.name for item in PRESETS])
def test_every_preset_is_valid_and_can_be_overridden(name: str) -> None:
    assert preset(name).config(epochs=7).epochs == 7
    assert preset(name).description


def test_an_unknown_preset_is_refused_and_the_known_named() -> None:
    with pytest.raises(ConfigError, match=r"'fast'.*resnet18_frozen"):
        preset("fast")


def test_exit_codes_are_the_documented_ones() -> None:
    codes = {item: getattr(errors, item).exit_code for item in dir(errors) if item.endswith("Error")}
    assert codes == {
        "Stage2Error": 1,
        "ConfigError": 2,
        "DataError": 1,
        "SplitError": 1,
        "TooManySkippedError": 1,
        "WeightsError": 1,
        "DeviceError": 1,
        "ExportError": 1,
        "StorageError": 74,
        "CheckpointError": 4,
        "StoreError": 4,
        "IntegrityError": 4,
        "MismatchError": 4,
        "IncompleteError": 4,
        "LockedError": 75,
    }
    assert all(issubclass(getattr(errors, item), Stage2Error) for item in codes)
