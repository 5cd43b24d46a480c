"""A setting is declared once; checks, roles and suggestions follow from the declaration."""

import math
from dataclasses import dataclass, fields
from typing import Any

import pytest

from configs.errors import ConfigError
from configs.extraction_config import ExtractionConfig
from configs.resnet_stage2_config import ResNetStage2Config
from configs.settings import (
    FREE_ON_RESUME,
    HEAD,
    MACHINE,
    TRAINING,
    check,
    check_name,
    from_options,
    names_with_role,
    setting,
    shared,
)
from configs.train_options import TrainOptions

NAMES = {
    HEAD: (
        *("backbone_name", "crop_size", "visual_feature_dim", "fusion_strategy", "hidden_dim"),
        *("use_geometric", "use_scene_context", "classes", "split"),
    ),
    FREE_ON_RESUME: (
        *("weights", "accumulate", "checkpointing", "crop_cache", "data_path", "num_workers"),
        *("checkpoint_dir", "device", "log_interval"),
    ),
    TRAINING: (
        *("freeze_backbone", "batchnorm", "freeze_blocks", "backbone_lr", "layer_decay", "augment", "amp"),
        *("accumulate", "checkpointing", "crop_cache", "epochs", "batch_size", "learning_rate", "patience"),
        *("checkpoint_dir", "device"),
    ),
    MACHINE: ("weights", "data_path", "num_workers", "checkpoint_dir", "device"),
}


@dataclass(frozen=True)
class Example:
    kind: str = setting("a", choices=("a", "b"), help="Kind.")
    rate: float = setting(0.5, option="r", low=0.0, high=1.0, roles=(HEAD,), help="Rate.")
    count: int = setting(1, low=1, high=9, help="Count.")
    crop_size: int = shared(ResNetStage2Config, "crop_size")
    flag: bool = setting(False, help="Flag.")

    def __post_init__(self) -> None:
        check(self)


@pytest.mark.parametrize("role", list(NAMES))
def test_the_fields_of_each_role(role: str) -> None:
    assert names_with_role(ResNetStage2Config, role) == NAMES[role]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "c"}, "kind is 'c'; choose one of a, b"),
        ({"kind": 1}, "kind is 1; it must be text"),
        ({"rate": 1.5}, r"rate \(--r\) is 1.5; it must be between 0.0 and 1.0"),
        ({"rate": math.nan}, r"rate \(--r\) is nan; it must be between 0.0 and 1.0"),
        ({"rate": "1"}, r"rate \(--r\) is '1'; it must be a number"),
        ({"rate": True}, "it must be a number"),
        ({"count": 0}, "count is 0; it must be between 1 and 9"),
        ({"count": 1.0}, "count is 1.0; it must be an integer"),
        ({"count": True}, "count is True; it must be an integer"),
        ({"crop_size": 31}, "crop_size is 31; it must be between 32 and 1024"),
        ({"flag": 1}, "flag is 1; it must be true or false"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_with_what_is_expected(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Example(**values)


def test_the_bounds_and_an_integer_for_a_number_are_allowed() -> None:
    assert Example(rate=0).rate == 0
    assert Example(rate=1.0, count=9).count == 9


def test_a_shared_setting_has_the_same_default_and_declaration() -> None:
    mine, source = (
        next(item for item in fields(config_class) if item.name == "crop_size")
        for config_class in (Example, ResNetStage2Config)
    )
    assert (mine.default, mine.metadata) == (source.default, source.metadata)
    assert Example().crop_size == ResNetStage2Config().crop_size


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("epoch", "unknown setting 'epoch'; did you mean 'epochs'"),
        ("lr", "unknown setting 'lr'; did you mean 'learning_rate'"),  # an option's name
        ("no_geometrics", "did you mean 'use_geometric'"),
        ("zzz", "unknown setting 'zzz'; the settings are backbone_name, weights, "),
    ],
)
def test_an_unknown_name_is_refused_with_a_suggestion(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_name(ResNetStage2Config, name)


def test_options_of_other_configs_are_left_out() -> None:
    assert from_options(Example, {"count": 3, "as_json": True}) == Example(count=3)


@pytest.mark.parametrize("config_class", [ResNetStage2Config, ExtractionConfig, TrainOptions])
def test_every_setting_has_a_help_text(config_class: type) -> None:
    for item in fields(config_class):
        text = item.metadata["setting"].help
        assert text.endswith((".", "]")), item.name
