"""The settings of a training run. Standard library only, so that `--help` is fast."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from configs.classes import DEFAULT_CLASSES, PairClass, check_classes
from configs.errors import ConfigError
from configs.panorama import AUTO, PANORAMA
from configs.settings import FREE_ON_RESUME, HEAD, MACHINE, TRAINING, check, check_name, setting
from configs.splits import JRDB_SPLIT, SPLIT_NAMES, SceneSplit

BACKBONES = ("resnet18", "resnet34", "resnet50", "hog")
FUSIONS = ("concat", "bilinear", "add")
BATCHNORMS = ("frozen", "train")
BALANCES = ("none", "loss", "sampler")
MAX_LABELS = 100_000  # of all classes together
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class ResNetStage2Config:
    """A validated description of one training run.

    Raises:
        ConfigError: a value is unknown, has the wrong type or is out of range; the message names the field.
    """

    # model
    backbone_name: str = setting(
        "resnet18", option="backbone", choices=BACKBONES, roles=(HEAD,), help="Visual backbone."
    )
    weights: str = setting(
        "imagenet",
        roles=(FREE_ON_RESUME, MACHINE),
        help="Weights of the backbone: imagenet, random, a checkpoint file, or the folder of a run.",
    )
    crop_size: int = setting(112, low=32, high=1024, roles=(HEAD,), help="Height and width of a person crop in pixels.")
    freeze_backbone: bool = setting(False, roles=(TRAINING,), help="Train only the head, on cached features.")
    batchnorm: str = setting(
        "frozen",
        choices=BATCHNORMS,
        roles=(TRAINING,),
        help="BatchNorm of the backbone: frozen (running statistics) or train (batch statistics).",
    )
    visual_feature_dim: int = setting(
        256,
        option="visual_dim",
        low=1,
        high=65536,
        roles=(HEAD,),
        help="Dimension to which the head projects each person's visual features.",
    )
    fusion_strategy: str = setting(
        "concat",
        option="fusion",
        choices=FUSIONS,
        roles=(HEAD,),
        help="How the head combines the visual features of two people.",
    )
    hidden_dim: int = setting(256, low=1, high=65536, roles=(HEAD,), help="Width of the head's hidden layer.")
    dropout: float = setting(0.3, low=0.0, high=0.95, help="Dropout rate of the head.")
    use_geometric: bool = setting(
        True, option="no_geometric", roles=(HEAD,), help="Do not use spatial features 0-6 (geometry of the two boxes)."
    )
    use_scene_context: bool = setting(
        True, option="no_scene_context", roles=(HEAD,), help="Do not use spatial feature 7 (people in the frame)."
    )
    # training the backbone
    freeze_blocks: int = setting(
        0, low=0, high=4, roles=(TRAINING,), help="Freeze the stem and the first N stages of the backbone; 0: none."
    )
    backbone_lr: float = setting(
        0.0, low=0.0, high=10.0, roles=(TRAINING,), help="Learning rate of the backbone; 0: the same as --lr."
    )
    layer_decay: float = setting(
        1.0,
        low=0.01,
        high=1.0,
        roles=(TRAINING,),
        help="Learning rate of each backbone stage, as a factor of the next stage's.",
    )
    augment: bool = setting(
        False, roles=(TRAINING,), help="Augment training crops: flip, shift, brightness, random erasing."
    )
    amp: bool = setting(
        False,
        roles=(TRAINING,),
        help="Train the backbone in mixed precision: faster on a GPU, slower on most CPUs.",
    )
    accumulate: int = setting(
        1,
        low=1,
        high=1_000_000,
        roles=(FREE_ON_RESUME, TRAINING),  # saves memory; changes only the rounding
        help="Split each batch into N parts and accumulate their gradients, to save memory.",
    )
    checkpointing: bool = setting(
        False,
        roles=(FREE_ON_RESUME, TRAINING),  # saves memory; changes only the rounding
        help="Recompute activations in the backward pass instead of storing them, to save memory.",
    )
    crop_cache: float = setting(
        1.0, low=0.0, high=1e6, roles=(FREE_ON_RESUME, TRAINING), help="GiB of memory for decoded crops."
    )
    # training
    epochs: int = setting(50, low=1, high=100_000, roles=(TRAINING,), help="Largest number of epochs.")
    batch_size: int = setting(16, low=1, high=1_000_000, roles=(TRAINING,), help="Pairs per batch.")
    learning_rate: float = setting(
        1e-4, option="lr", low=1e-12, high=10.0, roles=(TRAINING,), help="Peak learning rate of the head."
    )
    weight_decay: float = setting(1e-5, low=0.0, high=10.0, help="Weight decay.")
    optimizer: str = setting("adam", choices=("adam",), help="Optimizer.")
    warmup_epochs: float = setting(1.0, low=0.0, high=100_000.0, help="Epochs of linear learning-rate warm-up.")
    grad_clip: float = setting(1.0, low=1e-6, high=1e9, help="Largest L2 norm of the gradient.")
    patience: int = setting(
        15, low=1, high=100_000, roles=(TRAINING,), help="Stop after N epochs without a better validation MPCA."
    )
    mpca_weight: float = setting(0.1, low=0.0, high=1e3, help="Weight of the MPCA term of the loss.")
    acc_weight: float = setting(0.05, low=0.0, high=1e3, help="Weight of the accuracy term of the loss.")
    balance: str = setting(
        "loss",
        choices=BALANCES,
        help="How to handle class imbalance: class weights in the loss, a balanced sampler, or none.",
    )
    # data
    data_path: str = setting(
        "../dataset", roles=(FREE_ON_RESUME, MACHINE), help="JRDB-format folder with images/ and labels/."
    )
    frame_interval: int = setting(1, low=1, high=1_000_000, help="Use every N-th annotated frame of a scene.")
    panorama: str = setting(
        AUTO,
        choices=PANORAMA,
        help="Whether the left and right edges of an image touch; auto: if it is at least 4 times as wide as high.",
    )
    num_workers: int = setting(
        4,
        low=0,
        high=256,
        roles=(FREE_ON_RESUME, MACHINE),
        help="Threads that read, decode and crop images ahead of the model.",
    )
    feature_memory: float = setting(
        0.0,
        low=0.0,
        high=1e6,
        help="GiB of memory for cached features; larger stores are streamed. 0: half of the machine's memory.",
    )
    classes: tuple[PairClass, ...] = setting(DEFAULT_CLASSES, roles=(HEAD,), help="Classes and their labels.")
    split: SceneSplit = setting(JRDB_SPLIT, roles=(HEAD,), help="Scenes of each split.")  # noqa: RUF009 - setting() makes a field
    # output and machine
    checkpoint_dir: str = setting(
        "", roles=(FREE_ON_RESUME, TRAINING, MACHINE), help="Run folder.  [default: a new folder in checkpoints/]"
    )
    device: str = setting(
        "auto", choices=DEVICES, roles=(FREE_ON_RESUME, TRAINING, MACHINE), help="Device to compute on."
    )
    log_interval: int = setting(
        10, low=1, high=1_000_000, roles=(FREE_ON_RESUME,), help="Batches between two log lines."
    )
    seed: int = setting(42, low=0, high=2**63 - 1, help="Seed of all random numbers.")

    def __post_init__(self) -> None:
        check(self)
        self._check_text()
        check_classes(self.classes)
        self._check_backbone()
        self._check_batchnorm()

    def _check_text(self) -> None:
        """Refuses names of files that are not UTF-8, because config.json and the checkpoints contain the settings."""
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, str) and not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
                raise ConfigError(
                    f"{item.name} is {value!r}, which is not valid Unicode text; rename the file or folder"
                )

    def _check_backbone(self) -> None:
        if self.backbone_name == "hog" and not self.freeze_backbone:
            raise ConfigError("backbone_name is 'hog', which has no trainable parameters; give --freeze_backbone")

    def _check_batchnorm(self) -> None:
        """Refuses settings that forward crops twice, which would update the running statistics twice."""
        for name, used in (("accumulate", self.accumulate > 1), ("checkpointing", self.checkpointing)):
            if used and self.batchnorm == "train":
                raise ConfigError(f"{name} needs --batchnorm frozen, not train; leave out --{name} or --batchnorm")

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the model's outputs."""
        return tuple(pair_class.name for pair_class in self.classes)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for JSON; `from_dict` reads them."""
        values = asdict(self)
        values["classes"] = {pair_class.name: list(pair_class.labels) for pair_class in self.classes}
        values["split"] = {name: list(scenes) for name, scenes in values["split"].items()}
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ResNetStage2Config":
        """Makes a configuration from a dict read from TOML or JSON; missing keys get their defaults.

        Raises:
            ConfigError: a key is unknown or a value is not allowed; the message names the key.
        """
        for name in sorted(values):
            check_name(cls, name)
        values = dict(values)
        if "classes" in values:
            values["classes"] = _classes(values["classes"])
        if "split" in values:
            values["split"] = _split(values["split"])
        return cls(**values)


def _classes(value: object) -> tuple[PairClass, ...]:
    # One list may be there many times, so the labels are counted before they are looked at.
    count = sum(len(item) for item in value.values() if isinstance(item, list)) if isinstance(value, dict) else 0
    if count > MAX_LABELS:
        raise ConfigError(f"[classes] has {count:,} labels; at most {MAX_LABELS:,} are possible")
    if not isinstance(value, dict):
        raise ConfigError(f'classes is {value!r}; it must be a table: [classes], then "Talking" = ["conversation"]')
    for name, labels in value.items():
        if not _is_names(labels):
            raise ConfigError(
                f"[classes] {name!r} is {labels!r}; it must be a list of labels, such as ['conversation']"
            )
    return tuple(PairClass(str(name), tuple(labels)) for name, labels in value.items())


def _split(value: object) -> SceneSplit:
    if not isinstance(value, dict) or set(value) != set(SPLIT_NAMES):
        found = f"has the keys {', '.join(value) or 'nothing'}" if isinstance(value, dict) else f"is {value!r}"
        raise ConfigError(f"[split] {found}; it must have train, val and test, each with a list of scene names")
    for name, scenes in value.items():
        if not _is_names(scenes):
            raise ConfigError(f"[split] {name} is {scenes!r}; it must be a list of scene names")
    return SceneSplit(**{name: tuple(scenes) for name, scenes in value.items()})


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
