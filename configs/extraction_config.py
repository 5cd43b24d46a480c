"""What an extraction is. Standard library only."""

from dataclasses import dataclass, fields

from configs.checks import check_choices, check_ranges, check_type
from configs.resnet_stage2_config import BACKBONES, DEVICES

DTYPES = ("float16", "float32")
PERSONS = ("all", "paired")
ON_ERROR = ("skip", "fail")
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ExtractionConfig:
    """A validated description of one extraction job.

    Raises:
        ConfigError: a value is unknown, of the wrong type or out of range; the message names the field.
    """

    data_path: str = "../dataset"
    store: str = ""  # "": found by its fingerprint under stores/
    # the recipe: what changes the numbers
    backbone: str = "resnet18"
    weights: str = "imagenet"
    crop_size: int = 112  # pixels
    dtype: str = "float16"  # of storage
    precision: str = "float32"  # of the forward pass
    views: int = 1  # 2: the mirrored crops too
    # the selection
    frame_interval: int = 1
    persons: str = "all"
    # the machine
    batch_size: int = 0  # crops; 0: the fastest of a few on a CPU, 256 on a GPU
    num_workers: int = 4  # threads that read, decode and crop ahead of the model
    device: str = "auto"
    # the rules
    on_error: str = "skip"
    max_skipped: float = 0.01  # largest share of the planned frames, persons or pairs that may be left out
    retry_skipped: bool = False  # read the images of units with unusable ones once more
    update: bool = False  # accept changed data and compute what changed
    crops: bool = False  # store the crops too, in a store of their own within the store

    def __post_init__(self) -> None:
        for item in fields(self):
            check_type(item.name, getattr(self, item.name), item.type)
        check_choices(self, _CHOICES)
        check_ranges(self, _RANGES)


_CHOICES: dict[str, tuple[str, ...]] = {
    "backbone": BACKBONES,
    "dtype": DTYPES,
    "precision": PRECISIONS,
    "persons": PERSONS,
    "device": DEVICES,
    "on_error": ON_ERROR,
}
_RANGES: dict[str, tuple[float, float]] = {
    "crop_size": (32, 1024),
    "views": (1, 2),
    "frame_interval": (1, 1_000_000),
    "batch_size": (0, 65_536),
    "num_workers": (0, 256),
    "max_skipped": (0.0, 1.0),
}
