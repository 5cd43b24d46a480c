"""Scenes for training, validation and test.

Splits are by scene, because neighbouring frames of a scene are nearly identical.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import combinations

from configs.errors import SplitError

SPLIT_NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class SceneSplit:
    """Three disjoint groups of scene names.

    Raises:
        SplitError: a scene is in two groups, or twice in one; the message names the scenes.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        for first, second in combinations(SPLIT_NAMES, 2):
            common = sorted(set(self.scenes(first)) & set(self.scenes(second)))
            if common:
                raise SplitError(
                    f"the split leaks: {', '.join(common)} in both {first} and {second}; keep each scene in one of them"
                )
        for name in SPLIT_NAMES:
            scenes = self.scenes(name)
            repeated = sorted(scene for scene, count in Counter(scenes).items() if count > 1)
            if repeated:
                raise SplitError(f"the {name} split lists {', '.join(repeated)} twice; list each scene once")

    def scenes(self, name: str) -> tuple[str, ...]:
        """The scenes of split `name` ("train", "val" or "test")."""
        groups = {"train": self.train, "val": self.val, "test": self.test}
        return groups[name]


# The guide's split without its leak: the guide lists stlc-111-2019-04-19_0 in train and in test; here it is in train.
JRDB_SPLIT = SceneSplit(
    train=(
        "bytes-cafe-2019-02-07_0",
        "clark-center-2019-02-28_0",
        "cubberly-auditorium-2019-04-22_0",
        "forbes-cafe-2019-01-22_0",
        "gates-159-group-meeting-2019-04-03_0",
        "gates-to-clark-2019-02-28_1",
        "gates-ai-lab-2019-02-08_0",
        "hewlett-packard-intersection-2019-01-24_0",
        "huang-2-2019-01-25_0",
        "huang-basement-2019-01-25_0",
        "huang-lane-2019-02-12_0",
        "memorial-court-2019-03-16_0",
        "meyer-green-2019-03-16_0",
        "nvidia-aud-2019-04-18_0",
        "packard-poster-session-2019-03-20_2",
        "stlc-111-2019-04-19_0",
        "svl-meeting-gates-2-2019-04-08_0",
        "tressider-2019-04-26_2",
        "jordan-hall-2019-04-22_0",
    ),
    val=(
        "clark-center-2019-02-28_1",
        "gates-basement-elevators-2019-01-17_1",
        "packard-poster-session-2019-03-20_1",
        "svl-meeting-gates-2-2019-04-08_1",
        "tressider-2019-03-16_1",
    ),
    test=(
        "packard-poster-session-2019-03-20_0",
        "clark-center-intersection-2019-02-28_0",
        "tressider-2019-03-16_0",
    ),
)
