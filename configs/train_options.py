"""What a `train` command says in addition to the run's configuration."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainOptions:
    """What a `train` command says beside the run's configuration."""

    store: str = ""  # "": found by its fingerprint under stores/, extracted where there is none; end to end: images
    max_skipped: float = 0.01
    seeds: int = 1
    overwrite: bool = False
    resume: bool = False  # go on after last.pth in checkpoint_dir, where there is one
    start: str = ""  # end to end: the folder of a finished run to start from
    step: str = "fused"  # of heads on cached features: "fused" or "autograd"
