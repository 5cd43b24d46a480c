"""Configurations accept only known keys and allowed values, and survive a round trip through JSON values."""

import math
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.classes import DEFAULT_CLASSES, PairClass
from configs.errors import ConfigError, SplitError
from configs.extraction_config import ExtractionConfig
from configs.resnet_stage2_config import ResNetStage2Config
from configs.splits import SceneSplit
from configs.train_options import TrainOptions


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
        ("checkpoint_dir", "r\udcff"),
    ],
)
def test_a_value_of_a_run_that_is_not_allowed_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{name} "):
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
def test_a_value_of_an_extraction_that_is_not_allowed_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{name} "):
        ExtractionConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("seeds", 0), ("seeds", 1.0), ("max_skipped", -0.1), ("step", "slow"), ("store", None)]
)
def test_a_train_option_that_is_not_allowed_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{name} "):
        TrainOptions(**{name: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone_name": "hog"}, "--freeze_backbone"),
        ({"accumulate": 2, "batchnorm": "train"}, "accumulate needs --batchnorm frozen"),
        ({"checkpointing": True, "batchnorm": "train"}, "checkpointing needs --batchnorm frozen"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ResNetStage2Config(**settings)


def test_a_configuration_survives_its_dict() -> None:
    classes = (*DEFAULT_CLASSES, PairClass("Talking", ("conversation",)))
    config = ResNetStage2Config(classes=classes, split=SceneSplit(("a",), ("b",), ("c",)), dropout=0.5, epochs=3)
    assert ResNetStage2Config.from_dict(config.to_dict()) == config
    assert ResNetStage2Config.from_dict({}) == ResNetStage2Config()
    assert config.class_names == ("Walking Together", "Standing Together", "Sitting Together", "Talking")


def test_the_dict_has_every_field_in_order_and_only_json_values() -> None:
    values = ResNetStage2Config().to_dict()
    assert list(values) == [item.name for item in fields(ResNetStage2Config)]
    assert values["classes"]["Walking Together"] == ["walking together"]
    assert list(values["split"]) == ["train", "val", "test"]
    assert isinstance(values["split"]["val"], list)


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
def test_unknown_keys_and_malformed_tables_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        ResNetStage2Config.from_dict(values)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from([item.name for item in fields(ResNetStage2Config)]) | st.text(max_size=8)


@given(st.dictionaries(KEYS, JSON, max_size=4))
def test_any_dict_makes_a_configuration_or_raises_a_typed_error(values: dict[str, Any]) -> None:
    try:
        ResNetStage2Config.from_dict(values)
    except (ConfigError, SplitError) as error:
        assert str(error)
