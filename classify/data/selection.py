"""Selects the pairs of each split by classes, scene split and frame interval; stores do not depend on these."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from configs.classes import PairClass, class_of
from configs.errors import SplitError
from configs.resnet_stage2_config import ResNetStage2Config
from configs.splits import SPLIT_NAMES, SceneSplit
from store.tables import Tables

_log = logging.getLogger("stage2")


@dataclass(frozen=True)
class Split:
    """The m samples of a split, in the order of the tables."""

    name: str  # "train", "val" or "test"
    pairs: NDArray[np.int64]  # (m,) rows of Tables.pair
    labels: NDArray[np.int64]  # (m,) class indices

    def counts(self, num_classes: int) -> NDArray[np.int64]:
        """(C,) samples of each class."""
        return np.bincount(self.labels, minlength=num_classes).astype(np.int64)

    def sample(self, limit: int, seed: int) -> "Split":
        """At most `limit` random samples, without replacement, in table order."""
        if len(self.pairs) <= limit:
            return self
        rows = np.sort(np.random.default_rng(seed).choice(len(self.pairs), limit, replace=False))
        return Split(self.name, self.pairs[rows], self.labels[rows])


def select_splits(tables: Tables, config: ResNetStage2Config) -> dict[str, Split]:
    """The samples of "train", "val" and "test".

    Raises:
        SplitError: a split has no scene in the data, or no pair of a configured class.
    """
    return {name: select_split(tables, config, name) for name in SPLIT_NAMES}


def log_selection(tables: Tables, config: ResNetStage2Config) -> None:
    """Logs the excluded scenes and pairs, one line per reason."""
    _log_scenes(tables, config.split)
    _log_labels(tables, config)


def check_scenes(known: Sequence[str], split: SceneSplit, name: str) -> None:
    """Checks that one of the scenes `known` in the data belongs to part `name` of the split.

    Raises:
        SplitError: none does; the message names a near match.
    """
    scenes = split.scenes(name)
    if not scenes:
        raise SplitError(f"the {name} split is empty; list some of {_list_some(known)} as {name} under [split]")
    if not set(scenes) & set(known):
        near = _near_scene(scenes, known, split)
        raise SplitError(
            f"no scene of the {name} split is in the data ({_list_some(scenes)}){near}; the scenes in the data are "
            f"{_list_some(known)}: list some of them as {name} under [split]"
        )


def select_split(tables: Tables, config: ResNetStage2Config, name: str) -> Split:
    """The samples of one split: the pairs in every n-th frame of its scenes whose labels belong to a class.

    Raises:
        SplitError: the split has no scene in the data, or no such pair.
    """
    check_scenes(tables.scenes, config.split, name)
    scenes = config.split.scenes(name)
    in_scene = np.isin(np.asarray(tables.scenes, dtype=np.str_), np.asarray(scenes, dtype=np.str_))
    labels = pair_classes(tables, config.classes)
    here = in_scene[tables.frame_scene[tables.pair_frame]] & on_interval(tables, config)
    rows = np.flatnonzero(here & (labels >= 0)).astype(np.int64)
    if not len(rows):
        found = sorted({label for index in set(tables.label[here]) for label in tables.label_sets[index]})
        reason = f"its labels are {_list_some(found)}" if found else "its scenes have no label there"
        raise SplitError(
            f"the {name} split has no pair of a configured class at frame interval {config.frame_interval}: {reason}; "
            f"list other scenes under [split] or other labels under [classes]"
            + (", or lower --frame_interval" if config.frame_interval > 1 else "")
        )
    return Split(name, rows, labels[rows])


def pair_classes(tables: Tables, classes: tuple[PairClass, ...]) -> NDArray[np.int64]:
    """(M,) class index of each pair, -1 if its labels belong to no class."""
    by_set = np.array([class_of(labels, classes) for labels in tables.label_sets], dtype=np.int64)
    return by_set[tables.label] if len(by_set) else np.full(len(tables.label), -1, dtype=np.int64)


def on_interval(tables: Tables, config: ResNetStage2Config) -> NDArray[np.bool_]:
    """(M,) whether the pair is in every n-th annotated frame of its scene, counted from the first."""
    selected: NDArray[np.bool_] = tables.frame_index[tables.pair_frame] % config.frame_interval == 0
    return selected


def _log_scenes(tables: Tables, split: SceneSplit) -> None:
    listed = {scene for name in SPLIT_NAMES for scene in split.scenes(name)}
    pairs = np.bincount(tables.frame_scene[tables.pair_frame], minlength=len(tables.scenes))
    unlisted = [scene for scene in tables.scenes if scene not in listed]
    if unlisted:
        excluded = sum(int(pairs[index]) for index, scene in enumerate(tables.scenes) if scene not in listed)
        _log.info("Scenes in no split: %s; their %s pairs are excluded.", _list_some(unlisted), f"{excluded:,}")
    missing = sorted(listed - set(tables.scenes))
    if missing:
        near = _near_scene(missing, tables.scenes, split)
        _log.info("Scenes of the split that are not in the data: %s%s.", _list_some(missing), near)
    unlabelled = [scene for index, scene in enumerate(tables.scenes) if scene in listed and not pairs[index]]
    if unlabelled:
        _log.info("Scenes without a labelled pair: %s.", _list_some(unlabelled))


def _log_labels(tables: Tables, config: ResNetStage2Config) -> None:
    labels = tables.label[on_interval(tables, config)]
    counts = np.bincount(labels, minlength=len(tables.label_sets))
    matches = np.array([_count_matches(labels, config.classes) for labels in tables.label_sets], dtype=np.int64)
    unmatched, ambiguous = int(counts[matches == 0].sum()), int(counts[matches > 1].sum())
    if unmatched:
        most_frequent = int(np.argmax(np.where(matches == 0, counts, 0)))
        example = " + ".join(tables.label_sets[most_frequent]) or "no label"
        _log.info("Pairs whose labels belong to no class: %s (mostly %r); excluded.", f"{unmatched:,}", example)
    if ambiguous:
        _log.info("Pairs that match several classes: %s; the class listed first counts.", f"{ambiguous:,}")


def _count_matches(labels: tuple[str, ...], classes: tuple[PairClass, ...]) -> int:
    return sum(any(label in pair_class.labels for label in labels) for pair_class in classes)


def _near_scene(missing: Sequence[str], known: Sequence[str], split: SceneSplit) -> str:
    """ "; did you mean ...?" for the first missing scene whose name is near that of a scene in no split, else ""."""
    listed = {scene for name in SPLIT_NAMES for scene in split.scenes(name)}
    unlisted = {scene.lower(): scene for scene in known if scene not in listed}
    for scene in missing:
        near = get_close_matches(scene.lower().removesuffix(".json"), unlisted, n=1, cutoff=0.8)
        if near:
            return f"; for {scene!r}, did you mean {unlisted[near[0]]!r}?"
    return ""


def _list_some(names: Sequence[str]) -> str:
    """The first four names, and how many more there are."""
    rest = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return (", ".join(names[:4]) or "nothing") + rest
