"""The folder of a run: the names of its files, and how it is opened without replacing another run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from classify.model.checkpoint import is_checkpoint
from configs.errors import ConfigError, StorageError
from configs.ranks import rank, world_size
from configs.resnet_stage2_config import ResNetStage2Config
from store.files import exclusive_lock, remove_temporary_files
from store.outputs import claim_folder

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

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that a training run writes; the report is not one of them."""
        texts = (self.config, self.log, self.metrics, self.results)
        return (self.best_model, self.last, *texts, self.confusion_matrix, self.curves)

    @property
    def marker(self) -> Path:
        """The file that says that the folder is a run's; also the lock of the training that writes it."""
        return self.path / ".stage2-run"

    def holds_run(self) -> bool:
        """Whether a run has written a checkpoint, its configuration or its results here."""
        return any(path.exists() for path in (self.results, self.best_model, self.last, self.config))

    def is_foreign(self) -> bool:
        """Whether files with the names of a run's files are here that no run has written.

        Runs of versions without the marker are recognised by a checkpoint that can be loaded.
        """
        if self.marker.exists() or not any(os.path.lexists(path) for path in self.files):
            return False
        return not any(path.exists() and is_checkpoint(path) for path in (self.best_model, self.last))


def check_run_folder(config: ResNetStage2Config, overwrite: bool = False) -> None:
    """Checks that a run may write into `checkpoint_dir`.

    Raises:
        ConfigError: the folder holds a run and `overwrite` is not set; it has files of somebody else that a run would
            replace; it is part of the data; or several ranks train without a `checkpoint_dir`, which they need to find
            the same folder, also after a restart.
    """
    if world_size() > 1 and not config.checkpoint_dir:
        raise ConfigError("training with several processes needs a common run folder; give --checkpoint_dir")
    if rank() > 0 or not config.checkpoint_dir:
        return
    folder, data = RunFolder(Path(config.checkpoint_dir)), Path(config.data_path)
    claim_folder(folder.path, inputs=(data / "images", data / "labels"))
    if folder.path.resolve() == data.resolve():
        raise ConfigError(f"{folder.path} is the data folder, an input; name another --checkpoint_dir")
    if folder.is_foreign():
        raise ConfigError(
            f"{folder.path} has files with the names of a run's files (such as {folder.config.name} or "
            f"{folder.log.name}) but is not a run folder; choose another --checkpoint_dir"
        )
    if not overwrite and folder.holds_run():
        raise ConfigError(
            f"{folder.path} already holds a run; give --resume auto to continue it, --overwrite to "
            f"replace it, or another --checkpoint_dir"
        )


@contextmanager
def open_run_folder(config: ResNetStage2Config, overwrite: bool = False, resume: bool = False) -> Iterator[RunFolder]:
    """Locks the folder of a run: `checkpoint_dir`, or a new numbered folder under checkpoints/.

    With `overwrite`, the files of the run in it are removed, and no other files. With `resume`, a folder with a
    last.pth is used as it is. Ranks other than 0 do not write, and neither lock nor change the folder.

    Raises:
        ConfigError: see `check_run_folder`.
        LockedError: another job is training in the folder.
        StorageError: the folder cannot be created.
    """
    folder = RunFolder(Path(config.checkpoint_dir))
    if rank() > 0:
        yield folder
        return
    continues = resume and bool(config.checkpoint_dir) and folder.last.exists()
    if not continues:
        died_in_first_epoch = resume and not folder.results.exists()  # there is no finished epoch to lose
        check_run_folder(config, overwrite or died_in_first_epoch)
    try:
        if config.checkpoint_dir:
            folder.path.mkdir(parents=True, exist_ok=True)
        else:
            folder = _create_numbered(config)
    except OSError as error:
        raise _cannot_use(config, error) from error
    with exclusive_lock(folder.marker):
        try:
            for path in folder.files:
                remove_temporary_files(path)
                if not continues:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise _cannot_use(config, error) from error
        yield folder


def _cannot_use(config: ResNetStage2Config, error: OSError) -> StorageError:
    where = config.checkpoint_dir or ROOT
    return StorageError(f"{where} cannot be used ({error.strerror}); choose another --checkpoint_dir")


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
