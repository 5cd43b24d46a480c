"""The options of a training command that are not part of the run's configuration."""

from dataclasses import dataclass

from configs.extraction_config import ExtractionConfig
from configs.settings import check, setting, shared

STEPS = ("fused", "autograd")


@dataclass(frozen=True)
class TrainOptions:
    """How to obtain the features, how to use the run folder, and how to compute a step.

    They are not part of the configuration that checkpoints store.

    Raises:
        ConfigError: a value is unknown, has the wrong type or is out of range; the message names the field.
    """

    store: str = setting(
        "",
        help="Feature store; its crops if the backbone is trained.  "
        "[default: a matching store in stores/, or a new one; images if the backbone is trained]",
    )
    max_skipped: float = shared(ExtractionConfig, "max_skipped")
    update: bool = setting(False, help="Compute what changed in the data of `store`; set by `stage2 compare`.")
    seeds: int = setting(
        1, low=1, high=1_000_000, help="Train N times, with N consecutive seeds; report mean and standard deviation."
    )
    overwrite: bool = setting(False, help="Replace the run in the run folder.")
    resume: bool = setting(False, help="Continue the run in --checkpoint_dir, if there is one: auto, or no.")
    start: str = setting("", option="from", help="Finished run to start from: its settings and its head.")
    step: str = setting(
        "fused",
        choices=STEPS,
        help="Training step of heads on cached features: fused (hand-written gradients) or autograd (plain PyTorch).",
    )

    def __post_init__(self) -> None:
        check(self)
