"""Which pairs train, validate and test: classes, scene split and frame interval, decided when training reads them."""

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.classes import PairClass, class_of
from configs.errors import SplitError
from configs.resnet_stage2_config import ResNetStage2Config
from configs.splits import SPLIT_NAMES, SceneSplit
from store.tables import Tables

log = logging.getLogger("stage2")


@dataclass(frozen=True)
class Split:
    """The m samples of one part of the split, in the order of the tables."""

    name: str  # "train", "val" or "test"
    pairs: NDArray[np.int64]  # (m,) rows of Tables.pair
    labels: NDArray[np.int64]  # (m,) class indices

    def counts(self, num_classes: int) -> NDArray[np.int64]:
        """(C,) samples of each class."""
        return np.bincount(self.labels, minlength=num_classes).astype(np.int64)

    def sample(self, most: int, seed: int) -> "Split":
        """At most `most` of the samples, drawn without replacement by `seed` and kept in order."""
        if len(self.pairs) <= most:
            return self
        rows = np.sort(np.random.default_rng(seed).choice(len(self.pairs), most, replace=False))
        return Split(self.name, self.pairs[rows], self.labels[rows])


def select_splits(tables: Tables, config: ResNetStage2Config) -> dict[str, Split]:
    """The samples of "train", "val" and "test".

    Raises:
        SplitError: a part has no scene in the data, or no pair of a configured class.
    """
    return {name: select_split(tables, config, name) for name in SPLIT_NAMES}


def log_selection(tables: Tables, config: ResNetStage2Config, splits: dict[str, Split]) -> None:
    """Counts and logs what was left out, a sentence for each reason, and the classes that a split lacks."""
    _log_scenes(tables, config.split)
    _log_labels(tables, config)
    for split in splits.values():
        _log_absent(split, config.classes)


def select_split(tables: Tables, config: ResNetStage2Config, name: str) -> Split:
    """The samples of one part of the split: its scenes, every n-th frame, pairs whose labels make a class.

    Raises:
        SplitError: the part has no scene in the data, or no such pair.
    """
    wanted = config.split.scenes(name)
    if not set(wanted) & set(tables.scenes):
        raise SplitError(
            f"no scene of the {name} split is in the data ({_some(wanted)}); the data holds {_some(tables.scenes)}: "
            f"name some of them as {name} under [split]"
        )
    in_scene = np.isin(np.asarray(tables.scenes, dtype=np.str_), np.asarray(wanted, dtype=np.str_))
    labels = _pair_classes(tables, config.classes)
    keep = in_scene[tables.frame_scene[tables.pair_frame]] & _on_interval(tables, config) & (labels >= 0)
    rows = np.flatnonzero(keep).astype(np.int64)
    if not len(rows):
        raise SplitError(
            f"the {name} split has no pair of a configured class at frame interval {config.frame_interval}; "
            f"lower --frame_interval, or name other scenes under [split] or other labels under [classes]"
        )
    return Split(name, rows, labels[rows])


def _pair_classes(tables: Tables, classes: tuple[PairClass, ...]) -> NDArray[np.int64]:
    """(M,) class index of each pair, -1 where its labels make none."""
    by_set = np.array([class_of(labels, classes) for labels in tables.label_sets], dtype=np.int64)
    return by_set[tables.label] if len(by_set) else np.full(len(tables.label), -1, dtype=np.int64)


def _on_interval(tables: Tables, config: ResNetStage2Config) -> NDArray[np.bool_]:
    """(M,) whether the pair's frame is kept: every n-th annotated frame of its scene, from the first."""
    kept: NDArray[np.bool_] = tables.frame_index[tables.pair_frame] % config.frame_interval == 0
    return kept


def _log_scenes(tables: Tables, split: SceneSplit) -> None:
    listed = {scene for name in SPLIT_NAMES for scene in split.scenes(name)}
    pairs = np.bincount(tables.frame_scene[tables.pair_frame], minlength=len(tables.scenes))
    unlisted = [scene for scene in tables.scenes if scene not in listed]
    if unlisted:
        lost = sum(int(pairs[index]) for index, scene in enumerate(tables.scenes) if scene not in listed)
        log.info("Scenes in no split: %s; their %s pairs are left out.", _some(unlisted), f"{lost:,}")
    missing = sorted(listed - set(tables.scenes))
    if missing:
        log.info("Scenes of the split that the data does not hold: %s.", _some(missing))
    silent = [scene for index, scene in enumerate(tables.scenes) if scene in listed and not pairs[index]]
    if silent:
        log.info("Scenes without a labelled pair: %s.", _some(silent))


def _log_labels(tables: Tables, config: ResNetStage2Config) -> None:
    kept = tables.label[_on_interval(tables, config)]
    counts = np.bincount(kept, minlength=len(tables.label_sets))
    hits = np.array([_matches(labels, config.classes) for labels in tables.label_sets], dtype=np.int64)
    none, several = int(counts[hits == 0].sum()), int(counts[hits > 1].sum())
    if none:
        worst = int(np.argmax(np.where(hits == 0, counts, 0)))
        example = " + ".join(tables.label_sets[worst]) or "no label"
        log.info("Pairs whose labels make no class: %s (mostly %r); they are left out.", f"{none:,}", example)
    if several:
        log.info("Pairs that match several classes: %s; the class listed first counts.", f"{several:,}")


def _matches(labels: tuple[str, ...], classes: tuple[PairClass, ...]) -> int:
    return sum(any(label in pair_class.labels for label in labels) for pair_class in classes)


def _log_absent(split: Split, classes: tuple[PairClass, ...]) -> None:
    counts = split.counts(len(classes))
    absent = [pair_class.name for pair_class, count in zip(classes, counts, strict=True) if not count]
    if absent:
        log.info("The %s split has no %s.", split.name, " and no ".join(absent))


def _some(names: tuple[str, ...] | list[str]) -> str:
    """Up to four names, and how many more."""
    rest = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return (", ".join(names[:4]) or "nothing") + rest
