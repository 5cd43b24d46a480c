"""The folder of a run: the names of its files, and how it is opened without replacing another run."""

from dataclasses import dataclass
from pathlib import Path

from configs.errors import ConfigError, StorageError
from configs.ranks import rank, world_size
from configs.resnet_stage2_config import ResNetStage2Config

ROOT = Path("checkpoints")  # where runs without a `checkpoint_dir` get their folder


@dataclass(frozen=True)
class RunFolder:
    """The paths of everything that a run writes."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration, JSON."""
        return self.path / "config.json"

    @property
    def log(self) -> Path:
        """The log lines of the training."""
        return self.path / "training.log"

    @property
    def metrics(self) -> Path:
        """One JSON record an epoch."""
        return self.path / "metrics.jsonl"

    @property
    def best_model(self) -> Path:
        """The checkpoint of the epoch with the best validation MPCA."""
        return self.path / "best_model.pth"

    @property
    def last(self) -> Path:
        """The checkpoint of the last epoch, with the optimizer state for resuming."""
        return self.path / "last.pth"

    @property
    def results(self) -> Path:
        """The results on the test split, JSON; written when the run has finished."""
        return self.path / "final_results.json"

    @property
    def confusion_matrix(self) -> Path:
        """The confusion matrix of the test split, PNG."""
        return self.path / "confusion_matrix.png"

    @property
    def curves(self) -> Path:
        """Loss and validation metrics by epoch, PNG."""
        return self.path / "curves.png"

    @property
    def report(self) -> Path:
        """Where `stage2 report` writes its page by default."""
        return self.path / "report.html"

    def holds_run(self) -> bool:
        """Whether a run has written a checkpoint, its configuration or its results here."""
        return any(path.exists() for path in (self.results, self.best_model, self.last, self.config))

    def clear(self) -> None:
        """Creates the folder, or removes the files of the run in it and no other files. Raises OSError."""
        self.path.mkdir(parents=True, exist_ok=True)
        checkpoints = (self.best_model, self.last)
        texts = (self.config, self.log, self.metrics, self.results)
        for path in (*checkpoints, *texts, self.confusion_matrix, self.curves):
            path.unlink(missing_ok=True)


def check_run_folder(config: ResNetStage2Config, overwrite: bool = False) -> None:
    """Checks that a run may write into `checkpoint_dir`.

    Raises:
        ConfigError: the folder holds a run and `overwrite` is not set; or several ranks train without a
            `checkpoint_dir`, which they need to find the same folder, also after a restart.
    """
    if world_size() > 1 and not config.checkpoint_dir:
        raise ConfigError("training with several processes needs a common run folder; give --checkpoint_dir")
    if rank() > 0:
        return
    folder = RunFolder(Path(config.checkpoint_dir))
    if config.checkpoint_dir and not overwrite and folder.holds_run():
        raise ConfigError(
            f"{folder.path} already holds a run; give --resume auto to continue it, --overwrite to "
            f"replace it, or another --checkpoint_dir"
        )


def open_run_folder(config: ResNetStage2Config, overwrite: bool = False, resume: bool = False) -> RunFolder:
    """Returns the folder of a run: `checkpoint_dir`, or a new numbered folder under checkpoints/.

    With `overwrite`, the files of the run in it are removed, and no other files. With `resume`, a folder with a
    last.pth is returned unchanged; so is the folder on ranks other than 0, which do not write.

    Raises:
        ConfigError: `checkpoint_dir` already holds a run.
        StorageError: the folder cannot be created.
    """
    folder = RunFolder(Path(config.checkpoint_dir))
    if rank() > 0:
        return folder
    if resume and config.checkpoint_dir and folder.last.exists():
        return folder
    died_in_first_epoch = resume and not folder.results.exists()  # there is no finished epoch to lose
    check_run_folder(config, overwrite or died_in_first_epoch)
    try:
        if not config.checkpoint_dir:
            return _create_numbered(config)
        folder.clear()
    except OSError as error:
        where = config.checkpoint_dir or ROOT
        raise StorageError(f"{where} cannot be used ({error.strerror}); choose another --checkpoint_dir") from error
    return folder


def _create_numbered(config: ResNetStage2Config) -> RunFolder:
    """Creates the next free numbered folder; mkdir decides between runs that start at the same time."""
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
            return RunFolder(folder)
