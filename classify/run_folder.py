"""The folder of a run: named, never overwritten by accident."""

from pathlib import Path

from configs.errors import ConfigError, StorageError
from configs.ranks import rank, ranks
from configs.resnet_stage2_config import ResNetStage2Config

ROOT = Path("checkpoints")
MARKS = ("final_results.json", "best_model.pth", "last.pth", "config.json")  # a folder with one of these holds a run
REST = ("training.log", "metrics.jsonl", "confusion_matrix.png", "curves.png")


def check_run_folder(config: ResNetStage2Config, overwrite: bool = False) -> None:
    """Raises ConfigError where `checkpoint_dir` already holds a run and `overwrite` is not given.

    Several ranks need a `checkpoint_dir`, by which all of them, and those of a restart, find the run.
    """
    if ranks() > 1 and not config.checkpoint_dir:
        raise ConfigError("several processes need a folder that all of them know; give --checkpoint_dir")
    if rank() > 0:
        return
    folder = Path(config.checkpoint_dir)
    if config.checkpoint_dir and not overwrite and any((folder / name).exists() for name in MARKS):
        raise ConfigError(f"{folder} already holds a run; choose another --checkpoint_dir, or give --overwrite")


def open_run_folder(config: ResNetStage2Config, overwrite: bool = False, resume: bool = False) -> Path:
    """The folder of a new run, made: `checkpoint_dir`, or a new one under checkpoints/ that says what the run is.

    With `overwrite`, the files of the run that it holds are removed, and no others. With `resume`, a folder that
    holds last.pth is returned as it is.

    Raises:
        ConfigError: `checkpoint_dir` already holds a run.
        StorageError: the folder cannot be made.
    """
    folder = Path(config.checkpoint_dir)
    if rank() > 0:  # what rank 0 opens
        return folder
    if resume and config.checkpoint_dir and (folder / "last.pth").exists():
        return folder
    died_early = resume and not (folder / "final_results.json").exists()
    check_run_folder(config, overwrite or died_early)  # before its first epoch was whole there is nothing to lose
    try:
        if not config.checkpoint_dir:
            return _numbered(config)
        folder.mkdir(parents=True, exist_ok=True)
        for name in (*MARKS, *REST):
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        where = config.checkpoint_dir or ROOT
        raise StorageError(f"{where} cannot be used ({error.strerror}); choose another --checkpoint_dir") from error
    return folder


def _numbered(config: ResNetStage2Config) -> Path:
    """A folder that was not there; making it settles which of two runs started at once gets a number."""
    frozen = "_frozen" if config.freeze_backbone else ""
    name = f"{config.backbone_name}{frozen}_{config.fusion_strategy}_{config.visual_feature_dim}d"
    ROOT.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = ROOT / f"{name}-{number:03d}"
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder
