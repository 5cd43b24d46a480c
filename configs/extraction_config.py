"""What an extraction is. Standard library only."""

from dataclasses import dataclass

from configs.resnet_stage2_config import BACKBONES, DEVICES
from configs.settings import check, setting

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

    data_path: str = setting("../dataset", help="JRDB-format folder with images/ and labels/.")
    store: str = setting("", help="Store to write.  [default: stores/<fingerprint>]")
    # the recipe: settings that change the features
    backbone: str = setting("resnet18", choices=BACKBONES, help="Visual backbone.")
    weights: str = setting(
        "imagenet", help="Weights of the backbone: imagenet, random, a checkpoint file, or the folder of a run."
    )
    crop_size: int = setting(112, low=32, high=1024, help="Height and width of a person crop in pixels.")
    dtype: str = setting("float16", choices=DTYPES, help="Number type of the stored features.")
    precision: str = setting(
        "float32",
        choices=PRECISIONS,
        help="Number type of the forward pass on a GPU; float16 errs by up to 0.6 %, bfloat16 by up to 5 %.",
    )
    views: int = setting(1, low=1, high=2, help="1: the crops; 2: the crops and their mirror images.")
    # the selection
    frame_interval: int = setting(1, low=1, high=1_000_000, help="Use every N-th annotated frame of a scene.")
    persons: str = setting("all", choices=PERSONS, help="Extract all people, or only the people of annotated pairs.")
    # the machine
    batch_size: int = setting(
        0, low=0, high=65_536, help="Crops per batch; 0: 256 on a GPU, the fastest of several sizes on a CPU."
    )
    num_workers: int = setting(4, low=0, high=256, help="Threads that read, decode and crop images ahead of the model.")
    device: str = setting("auto", choices=DEVICES, help="Device to compute on.")
    # errors and updates
    on_error: str = setting("skip", choices=ON_ERROR, help="Skip an unusable image or annotation, or stop.")
    max_skipped: float = setting(
        0.01, low=0.0, high=1.0, help="Stop if a larger share of frames, people or pairs is unusable."
    )
    retry_skipped: bool = setting(False, help="Process the units with unusable images again, and no other ones.")
    update: bool = setting(False, help="Accept changed data and compute only what changed.")
    crops: bool = setting(False, help="Also store the crops, in STORE/crops, for end-to-end training.")

    def __post_init__(self) -> None:
        check(self)
