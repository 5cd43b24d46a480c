"""What a training run is. Standard library only, so that `--help` needs nothing heavy."""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from configs.checks import check_choices, check_ranges, check_type
from configs.classes import DEFAULT_CLASSES, PairClass, check_classes
from configs.errors import ConfigError
from configs.splits import JRDB_SPLIT, SceneSplit

BACKBONES = ("resnet18", "resnet34", "resnet50", "hog")
FUSIONS = ("concat", "bilinear", "add")
BATCHNORMS = ("frozen", "train")
BALANCES = ("none", "loss", "sampler")
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class ResNetStage2Config:
    """A validated description of one training run.

    Raises:
        ConfigError: a value is unknown, of the wrong type or out of range; the message names the field.
    """

    # model
    backbone_name: str = "resnet18"
    weights: str = "imagenet"  # "imagenet", "random", or the path of a checkpoint
    crop_size: int = 112  # pixels
    freeze_backbone: bool = False
    batchnorm: str = "frozen"  # of an unfrozen backbone: by its running figures, or "train": by the batch's
    visual_feature_dim: int = 256
    fusion_strategy: str = "concat"
    hidden_dim: int = 256
    dropout: float = 0.3
    use_geometric: bool = True  # spatial features 0-6
    use_scene_context: bool = True  # spatial feature 7
    # training the backbone
    freeze_blocks: int = 0  # 1-4: the stem and so many stages stay as they are; 0: none does
    backbone_lr: float = 0.0  # 0.0: the learning rate of the head
    layer_decay: float = 1.0  # a stage's learning rate over that of the next one
    augment: bool = False  # training crops are mirrored, shifted, brightened, partly hidden
    amp: bool = False  # the backbone trains in bfloat16, or float16 where the GPU has none
    accumulate: int = 1  # parts in which a batch goes through the backbone
    checkpointing: bool = False  # compute each stage's activations again instead of keeping them
    crop_cache: float = 1.0  # GiB of memory for decoded crops
    # training
    epochs: int = 50
    batch_size: int = 16  # pairs
    learning_rate: float = 1e-4
    weight_decay: float = 1e-5
    optimizer: str = "adam"
    warmup_epochs: float = 1.0
    grad_clip: float = 1.0  # largest norm of the joint gradient
    patience: int = 15  # epochs without a better validation MPCA
    mpca_weight: float = 0.1
    acc_weight: float = 0.05
    balance: str = "loss"  # the one owner of class imbalance
    # data
    data_path: str = "../dataset"
    frame_interval: int = 1
    num_workers: int = 4
    feature_memory: float = 0.0  # GiB that cached features may take, else they are streamed; 0.0: half of the machine's
    classes: tuple[PairClass, ...] = DEFAULT_CLASSES
    split: SceneSplit = field(default=JRDB_SPLIT)
    # the rest
    checkpoint_dir: str = ""  # "": a new folder under checkpoints/
    device: str = "auto"
    log_interval: int = 10  # batches
    seed: int = 42

    def __post_init__(self) -> None:
        for item in fields(self):
            check_type(item.name, getattr(self, item.name), item.type)
        check_choices(self, _CHOICES)
        check_ranges(self, _RANGES)
        check_classes(self.classes)
        self._check_backbone()
        self._check_batchnorm()

    def _check_backbone(self) -> None:
        if self.backbone_name == "hog" and not self.freeze_backbone:
            raise ConfigError("backbone_name is 'hog', which has nothing to train; give --freeze_backbone")

    def _check_batchnorm(self) -> None:
        """What forwards crops twice would move BatchNorm's figures twice."""
        for name, given in (("accumulate", self.accumulate > 1), ("checkpointing", self.checkpointing)):
            if given and self.batchnorm == "train":
                raise ConfigError(f"{name} needs batchnorm frozen, not train; leave out one of the two")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` takes them back."""
        values = asdict(self)
        values["classes"] = {pair_class.name: list(pair_class.labels) for pair_class in self.classes}
        values["split"] = {name: list(scenes) for name, scenes in values["split"].items()}
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ResNetStage2Config":
        """The configuration of a dict as read from TOML or JSON; missing keys keep their defaults.

        Raises:
            ConfigError: a key is unknown or a value has the wrong type; the key is named.
        """
        known = {item.name for item in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"unknown setting {unknown[0]!r}; the settings are {', '.join(sorted(known))}")
        values = dict(values)
        if "classes" in values:
            values["classes"] = _classes(values["classes"])
        if "split" in values:
            values["split"] = _split(values["split"])
        return cls(**values)


_CHOICES: dict[str, tuple[str, ...]] = {
    "backbone_name": BACKBONES,
    "fusion_strategy": FUSIONS,
    "balance": BALANCES,
    "batchnorm": BATCHNORMS,
    "device": DEVICES,
    "optimizer": ("adam",),
}
_RANGES: dict[str, tuple[float, float]] = {
    "crop_size": (32, 1024),
    "visual_feature_dim": (1, 65536),
    "hidden_dim": (1, 65536),
    "dropout": (0.0, 0.95),
    "freeze_blocks": (0, 4),
    "backbone_lr": (0.0, 10.0),
    "layer_decay": (0.01, 1.0),
    "accumulate": (1, 1_000_000),
    "crop_cache": (0.0, 1e6),
    "feature_memory": (0.0, 1e6),
    "epochs": (1, 100_000),
    "batch_size": (1, 1_000_000),
    "learning_rate": (1e-12, 10.0),
    "weight_decay": (0.0, 10.0),
    "warmup_epochs": (0.0, 100_000.0),
    "grad_clip": (1e-6, 1e9),
    "patience": (1, 100_000),
    "mpca_weight": (0.0, 1e3),
    "acc_weight": (0.0, 1e3),
    "frame_interval": (1, 1_000_000),
    "num_workers": (0, 256),
    "log_interval": (1, 1_000_000),
    "seed": (0, 2**63 - 1),
}


def _classes(value: object) -> tuple[PairClass, ...]:
    if not isinstance(value, dict) or not all(_is_names(labels) for labels in value.values()):
        raise ConfigError('[classes] must map class names to lists of labels: "Talking" = ["conversation"]')
    return tuple(PairClass(str(name), tuple(labels)) for name, labels in value.items())


def _split(value: object) -> SceneSplit:
    if not isinstance(value, dict) or set(value) != {"train", "val", "test"}:
        raise ConfigError("[split] must hold exactly the keys train, val and test")
    if not all(_is_names(scenes) for scenes in value.values()):
        raise ConfigError("[split] must hold lists of scene names")
    return SceneSplit(**{name: tuple(scenes) for name, scenes in value.items()})


def _is_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
