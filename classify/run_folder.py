"""The folder of a run: the names of its files, and what the folder holds."""

import re
from dataclasses import dataclass
from pathlib import Path

from classify.model.checkpoint import is_checkpoint
from store.ownership import RUN, RUN_MARKER, is_marked

ROOT = Path("checkpoints")  # where runs without a `checkpoint_dir` get their folder
STAGING = ".stage2-new"  # in the folder of an earlier run: the run that will replace it, see `classify.replacement`


@dataclass(eq=False)
class RunFolder:
    """The paths of everything that a run writes."""

    home: Path  # the folder that the user named; of one of several seeds, a folder in it
    parent: "RunFolder | None" = None  # of one of several seeds: the folder of all of them
    staged: bool = False  # an earlier run is in `home`; the files of this one are in STAGING until it has a checkpoint

    @property
    def path(self) -> Path:
        """Where the files are now."""
        if self.parent is not None:
            return self.parent.path / self.home.name
        return self.home / STAGING if self.staged else self.home

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
    def comparison_row(self) -> Path:
        """The run's row of the table of `stage2 compare`, JSON."""
        return self.path / "compare_row.json"

    @property
    def report(self) -> Path:
        """Where `stage2 report` writes its page by default."""
        return self.path / "report.html"

    @property
    def images(self) -> Path:
        """Which images an end-to-end run has decoded without a fault; a cache, may be deleted."""
        return self.path / ".images.json"

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of a run except the report."""
        texts = (self.config, self.log, self.metrics, self.results, self.comparison_row)
        return (self.best_model, self.last, *texts, self.confusion_matrix, self.curves, self.images)

    @property
    def marker(self) -> Path:
        """The file that says that the folder is a run's; also the lock of the training that writes it."""
        return (self.home if self.parent is None else self.path) / RUN_MARKER

    def seed(self, number: int) -> "RunFolder":
        """The folder of one of several seeds."""
        return RunFolder(self.home / f"seed-{number}", self)

    def seeds(self) -> dict[int, "RunFolder"]:
        """The folders of several seeds that are here, by seed; none if this is the run of one seed."""
        entries = [path for path in self.path.glob("seed-*") if not path.is_symlink()]  # which may lead to another run
        matches = [re.fullmatch(r"seed-(\d+)", path.name) for path in entries]
        folders = {int(match[1]): self.seed(int(match[1])) for match in matches if match}
        return {number: folders[number] for number in sorted(folders) if folders[number].is_run()}

    def is_run(self) -> bool:
        """Whether stage2 has made this folder for a run.

        Runs of versions without the marker are recognised by a checkpoint that can be loaded.
        """
        if is_marked(self.marker, RUN):
            return True
        return any(path.exists() and is_checkpoint(path) for path in (self.best_model, self.last))

    def holds_run(self) -> bool:
        """Whether a run has written a checkpoint, its configuration or its results here."""
        here = any(path.exists() for path in (self.results, self.best_model, self.last, self.config))
        return here or bool(self.seeds())

    def is_usable(self) -> bool:
        """Whether there is a model or a result that another run must not remove before it has one itself."""
        return self.best_model.exists() or self.results.exists() or self.can_continue()

    def can_continue(self) -> bool:
        """Whether there is an epoch or a seed to continue from."""
        return self.last.exists() or bool(self.seeds())
