"""What one extraction job is. Standard library only."""

from dataclasses import dataclass

from configs.resnet_stage2_config import BACKBONES, ResNetStage2Config
from configs.settings import check, setting, shared

DTYPES = ("float16", "float32")
PERSONS = ("all", "paired")
ON_ERROR = ("skip", "fail")
PRECISIONS = ("float32", "bfloat16", "float16", "int8")


@dataclass(frozen=True)
class ExtractionConfig:
    """A validated description of one extraction job. The order of the fields is the order of the options in help.

    Raises:
        ConfigError: a value is unknown, has the wrong type or is out of range; the message names the field.
    """

    data_path: str = shared(ResNetStage2Config, "data_path")
    store: str = setting("", help="Store to write.  [default: stores/<fingerprint>]")
    # which features
    backbone: str = setting("resnet18", choices=BACKBONES, help="Visual backbone.")
    weights: str = shared(ResNetStage2Config, "weights")
    crop_size: int = shared(ResNetStage2Config, "crop_size")
    frame_interval: int = shared(ResNetStage2Config, "frame_interval")
    panorama: str = shared(ResNetStage2Config, "panorama")
    persons: str = setting("all", choices=PERSONS, help="Extract all people, or only the people in annotated pairs.")
    views: int = setting(1, low=1, high=2, help="1: each crop; 2: also its mirror image.")
    dtype: str = setting("float16", choices=DTYPES, help="Number type of the stored features.")
    precision: str = setting(
        "float32",
        choices=PRECISIONS,
        help="Number type of the forward pass. On a GPU, float16 errs by up to 0.6 %. On a GPU, and on a CPU that "
        "computes it natively, bfloat16 errs by up to 5 %. On a CPU, int8 (extra onnx) is fastest, and the extraction "
        "measures its error, about 10 %.",
    )
    # how to compute
    batch_size: int = setting(
        0, low=0, high=65_536, help="Crops per batch; 0: 256 on a GPU, the fastest of several sizes on a CPU."
    )
    num_workers: int = shared(ResNetStage2Config, "num_workers")
    device: str = shared(ResNetStage2Config, "device")
    # errors and updates
    on_error: str = setting("skip", choices=ON_ERROR, help="Skip an unusable frame, person or pair, or fail.")
    max_skipped: float = setting(
        0.01, low=0.0, high=1.0, help="Fail if a larger share of frames, people or pairs is unusable."
    )
    retry_skipped: bool = setting(False, help="Process only the units with unusable images again.")
    update: bool = setting(False, help="Extend the store, or accept changed data, and compute only what is missing.")
    remove_missing: bool = setting(
        False, help="With --update, remove scenes from the store whose annotation files are missing."
    )
    crops: bool = setting(False, help="Also store the crops, in STORE/crops, for end-to-end training.")

    def __post_init__(self) -> None:
        check(self)
