"""Labels map to classes in the order of the classes; a split that shares a scene is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.classes import DEFAULT_CLASSES, PairClass, check_classes, class_of
from configs.errors import ConfigError, SplitError
from configs.resnet_stage2_config import ResNetStage2Config
from configs.splits import JRDB_SPLIT, SPLIT_NAMES, SceneSplit

SCENES = st.lists(st.sampled_from("abcdef"), max_size=4).map(tuple)


def test_the_default_split_is_disjoint_and_lists_27_scenes_once() -> None:
    scenes = [scene for name in SPLIT_NAMES for scene in JRDB_SPLIT.scenes(name)]
    assert [len(JRDB_SPLIT.scenes(name)) for name in SPLIT_NAMES] == [19, 5, 3]
    assert len(scenes) == len(set(scenes))
    assert "stlc-111-2019-04-19_0" in JRDB_SPLIT.train
    assert "stlc-111-2019-04-19_0" not in JRDB_SPLIT.test


def test_a_shared_scene_is_refused_with_the_names_of_scenes_and_splits() -> None:
    with pytest.raises(SplitError, match=r"one, two in both train and test"):
        SceneSplit(train=("one", "two", "x"), val=("three",), test=("two", "one"))
    with pytest.raises(SplitError, match="both val and test"):
        SceneSplit(train=(), val=("one",), test=("one",))


def test_a_scene_twice_in_one_split_is_refused() -> None:
    with pytest.raises(SplitError, match="the val split lists one twice"):
        SceneSplit(train=("a",), val=("one", "one"), test=())


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


def test_the_first_class_with_any_of_the_labels_counts() -> None:
    assert class_of(("sitting together",), DEFAULT_CLASSES) == 2
    assert class_of(("conversation", "walking together"), DEFAULT_CLASSES) == 0
    assert class_of(("sitting together", "standing together"), DEFAULT_CLASSES) == 1
    assert class_of(("conversation",), DEFAULT_CLASSES) == -1
    assert class_of((), DEFAULT_CLASSES) == -1


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((), r"\[classes\] is empty"),
        ((PairClass("A", ("x",)), PairClass("A", ("y",))), "class 'A' twice"),
        ((PairClass("A", ("x",)), PairClass("B", ("x",))), "label 'x' twice"),
        ((PairClass("A", ()),), "'A' has no labels"),
    ],
)
def test_unusable_classes_are_refused(classes: tuple[PairClass, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_classes(classes)


@pytest.mark.timeout(20)
def test_h1_many_labels_are_refused_before_they_are_copied() -> None:
    """A checkpoint can name the same list for many classes, which takes no space in the file."""
    labels = [str(number) for number in range(50_000)]
    with pytest.raises(ConfigError, match="at most 100,000 are possible"):
        ResNetStage2Config.from_dict({"classes": {str(number): labels for number in range(50_000)}})


@pytest.mark.timeout(20)
def test_h5_repeated_labels_and_scenes_are_found_in_linear_time() -> None:
    names = tuple(str(number) for number in range(60_000))
    with pytest.raises(ConfigError, match="lists the label '7' twice"):
        check_classes((PairClass("a", (*names, "7")),))
    with pytest.raises(SplitError, match="lists 7 twice"):
        SceneSplit((*names, "7"), ("v",), ("t",))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"classes": {"Walk": "walking together"}},
            r"\[classes\] 'Walk' is 'walking together'; it must be a list of lab",
        ),
        ({"classes": {"Sit": ["a"], "Walk": [3]}}, r"\[classes\] 'Walk' is \[3\]; it must be a list"),
        ({"classes": ["walking together"]}, r"classes is \['walking together'\]; it must be a table"),
        (
            {"split": {"train": [], "valid": [], "test": []}},
            "has the keys train, valid, test; it must have train, val and",
        ),
        ({"split": {"train": "a", "val": [], "test": []}}, r"\[split\] train is 'a'; it must be a list of scene names"),
        ({"split": "guide"}, r"\[split\] is 'guide'; it must have train, val and test"),
    ],
)
def test_what_was_found_in_place_of_classes_or_scenes_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ResNetStage2Config.from_dict(settings)
