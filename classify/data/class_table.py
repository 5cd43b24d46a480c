"""How many pairs of each class each split has; refuses classes without pairs, and warns of splits that lack one."""

import logging
from collections import Counter
from dataclasses import asdict, dataclass
from difflib import get_close_matches

import numpy as np

from classify.data.selection import Split, on_interval, pair_classes
from configs.classes import DEFAULT_CLASSES, PairClass, class_of
from configs.errors import SplitError
from configs.printable import printable
from configs.resnet_stage2_config import ResNetStage2Config
from store.tables import Tables

_MAX_LISTED = 30  # labels in an error
_SIMILAR = 0.6  # of `difflib`: similar enough to suggest a label
_MISSPELT = 0.9  # similar enough to be a misspelling; no other label of JRDB is that similar to a default one
_log = logging.getLogger("stage2")


@dataclass(frozen=True)
class ClassRow:
    """The pairs of one class in each split."""

    train: int
    val: int
    test: int
    to_earlier_class: int  # pairs of the splits with a label of this class that an earlier class gets

    def to_dict(self) -> dict[str, int]:
        """Plain values for JSON."""
        return asdict(self)


def class_table(tables: Tables, config: ResNetStage2Config, splits: dict[str, Split]) -> dict[str, ClassRow]:
    """The row of each class, by name, in the order of the classes."""
    classes = config.classes
    counts = {name: split.counts(len(classes)) for name, split in splits.items()}
    used = np.concatenate([split.pairs for split in splits.values()])
    by_set = np.bincount(tables.label[used], minlength=len(tables.label_sets))
    rows = {}
    for index, pair_class in enumerate(classes):
        earlier = [
            _has_label(labels, pair_class) and 0 <= class_of(labels, classes) < index for labels in tables.label_sets
        ]
        own = {name: int(count[index]) for name, count in counts.items()}
        rows[pair_class.name] = ClassRow(**own, to_earlier_class=int(by_set[np.array(earlier, bool)].sum()))
    return rows


def log_class_table(table: dict[str, ClassRow]) -> None:
    """Logs the table, one line per class."""
    width = max(len("Pairs per class:"), *(len(printable(name)) + 2 for name in table))
    _log.info("%-*s %9s %9s %9s  %s", width, "Pairs per class:", "train", "val", "test", "given to an earlier class")
    for name, row in table.items():
        values = (f"{count:,}" for count in row.to_dict().values())
        _log.info("%-*s %9s %9s %9s  %s", width, f"  {printable(name)}", *values)


def class_warnings(table: dict[str, ClassRow]) -> list[str]:
    """One sentence for each class that a split lacks, and for a test split of a single class."""
    absent = [name for name, row in table.items() if not row.train + row.val + row.test]
    warnings = [
        f"no split has a pair of class {printable(name)!r}: the model cannot learn it, and no metric includes it"
        for name in absent
    ]
    for split in ("train", "val", "test"):
        present = [name for name, row in table.items() if getattr(row, split)]
        missing = [name for name in table if name not in present and name not in absent]
        for name in missing:
            effect = {
                "train": "the model cannot learn this class",
                "val": "the best epoch is chosen without this class",
                "test": f"the test MPCA is the mean over {len(present)} of {len(table)} classes",
            }
            warnings.append(f"the {split} split has no pair of class {printable(name)!r}: {effect[split]}")
        if split == "test" and len(present) == 1:
            warnings.append(
                f"the test split has pairs of class {printable(present[0])!r} only: "
                f"its metrics do not show how well the classes are told apart"
            )
    return warnings


def check_train_classes(train: Split, config: ResNetStage2Config) -> None:
    """Raises SplitError if the train split has pairs of a single class, which leaves nothing to learn."""
    present = np.flatnonzero(train.counts(len(config.classes)))
    if len(present) < 2:
        raise SplitError(
            f"the train split has pairs of class {config.class_names[present[0]]!r} only, and training needs two "
            f"classes; list other scenes under [split], or other labels under [classes]"
        )


def check_class_labels(tables: Tables, config: ResNetStage2Config) -> None:
    """Checks that every class gets a pair of the data, at the run's frame interval.

    A small data set may lack one of the default classes (`class_warnings` says so), unless a label that no class uses
    looks like a misspelling of its label.

    Raises:
        SplitError: a class gets none; the message names the nearest label and lists the labels in the data, or names
            the earlier class that gets all pairs.
    """
    classes, rows = config.classes, on_interval(tables, config)
    own = np.bincount(pair_classes(tables, classes)[rows] + 1, minlength=len(classes) + 1)[1:]
    pairs = np.bincount(tables.label[rows], minlength=len(tables.label_sets)).tolist()
    counts = {labels: count for labels, count in zip(tables.label_sets, pairs, strict=True) if count}
    known = sorted({label for labels in counts for label in labels})
    for index in np.flatnonzero(own == 0).tolist():
        pair_class = classes[index]
        if classes == DEFAULT_CLASSES and not _near_label(pair_class, config, known, _MISSPELT):
            continue
        lost: Counter[str] = Counter()
        for labels, count in counts.items():
            if _has_label(labels, pair_class):
                lost[classes[class_of(labels, classes)].name] += count
        if lost:
            earlier, count = lost.most_common(1)[0]
            raise SplitError(
                f"class {pair_class.name!r} gets no pair: all {sum(lost.values()):,} with its labels belong to earlier "
                f"classes ({count:,} to {earlier!r}); list it earlier under [classes], or leave it out"
            )
        raise SplitError(_no_pair(pair_class, config, known))


def _no_pair(pair_class: PairClass, config: ResNetStage2Config, known: list[str]) -> str:
    listed = ", ".join(f"{label!r}" for label in known[:_MAX_LISTED]) + (", ..." if len(known) > _MAX_LISTED else "")
    wanted = " or ".join(repr(label) for label in pair_class.labels)
    near = _near_label(pair_class, config, known, _SIMILAR)
    suggestion = f"did you mean {near!r}? " if near else ""
    at = f" at frame interval {config.frame_interval}" if config.frame_interval > 1 else ""
    return (
        f"class {pair_class.name!r}: no pair in the data has the label {wanted}{at}; {suggestion}"
        f"The labels in the data are {listed or 'none'}: correct [classes], or leave the class out"
    )


def _near_label(pair_class: PairClass, config: ResNetStage2Config, known: list[str], similarity: float) -> str:
    """The label in the data that no class uses and that looks most like one of the class's labels, or ""."""
    used = {label for other in config.classes for label in other.labels}
    free = {label.lower().replace("_", " ").replace("-", " "): label for label in known if label not in used}
    near = (get_close_matches(label.lower(), free, n=1, cutoff=similarity) for label in pair_class.labels)
    return next((free[matches[0]] for matches in near if matches), "")


def _has_label(labels: tuple[str, ...], pair_class: PairClass) -> bool:
    return any(label in pair_class.labels for label in labels)
