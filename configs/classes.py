"""Pair classes, and the annotated labels that belong to each."""

from collections import Counter
from dataclasses import dataclass

from configs.errors import ConfigError


@dataclass(frozen=True)
class PairClass:
    """A class of pairs and its annotated labels (keys of `inter_labels` in the annotations)."""

    name: str
    labels: tuple[str, ...]


DEFAULT_CLASSES = (
    PairClass("Walking Together", ("walking together",)),
    PairClass("Standing Together", ("standing together",)),
    PairClass("Sitting Together", ("sitting together",)),
)


def class_of(labels: tuple[str, ...], classes: tuple[PairClass, ...]) -> int:
    """Returns the index of the first class with any of a pair's labels, or -1.

    A pair can have several labels ("sitting together", "conversation"), so the order of `classes` matters.
    """
    for index, pair_class in enumerate(classes):
        if any(label in pair_class.labels for label in labels):
            return index
    return -1


def check_classes(classes: tuple[PairClass, ...]) -> None:
    """Raises ConfigError if there are no classes, a class has no labels, or a name or label is listed twice."""
    if not classes:
        raise ConfigError("[classes] is empty; list at least one class")
    names = [pair_class.name for pair_class in classes]
    labels = [label for pair_class in classes for label in pair_class.labels]
    for what, values in (("class", names), ("label", labels)):
        repeated = sorted(value for value, count in Counter(values).items() if count > 1)
        if repeated:
            raise ConfigError(f"[classes] lists the {what} {repeated[0]!r} twice; list it once")
    for pair_class in classes:
        if not pair_class.labels:
            raise ConfigError(f"class {pair_class.name!r} has no labels; list the annotated labels that belong to it")
