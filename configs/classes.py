"""Which annotated labels make which classes."""

from dataclasses import dataclass

from configs.errors import ConfigError


@dataclass(frozen=True)
class PairClass:
    """A class of pairs: its name, and the annotated labels (keys of `inter_labels`) that belong to it."""

    name: str
    labels: tuple[str, ...]


DEFAULT_CLASSES = (
    PairClass("Walking Together", ("walking together",)),
    PairClass("Standing Together", ("standing together",)),
    PairClass("Sitting Together", ("sitting together",)),
)


def class_of(labels: tuple[str, ...], classes: tuple[PairClass, ...]) -> int:
    """The index of the first class that any of a pair's labels belongs to, or -1 where none does.

    A pair can carry several labels ("sitting together", "conversation"); the order of `classes` decides.
    """
    for index, pair_class in enumerate(classes):
        if any(label in pair_class.labels for label in labels):
            return index
    return -1


def check_classes(classes: tuple[PairClass, ...]) -> None:
    """Raises ConfigError unless there is a class, each has a label, and no name or label stands twice."""
    if not classes:
        raise ConfigError("there are no classes; name at least one under [classes]")
    names = [pair_class.name for pair_class in classes]
    labels = [label for pair_class in classes for label in pair_class.labels]
    for what, values in (("class", names), ("label", labels)):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ConfigError(f"[classes] lists the {what} {twice[0]!r} twice; list it once")
    for pair_class in classes:
        if not pair_class.labels:
            raise ConfigError(f"class {pair_class.name!r} has no labels; name those that make it")
