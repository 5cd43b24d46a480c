"""The log lines of a run, and the training.log in its folder.

Their wording is that of the training guide, and scripts parse it.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from classify.data.batches import Source
from classify.data.selection import Split
from classify.run_folder import RunFolder
from configs.process.console import QuietHandler, attached
from configs.ranks import rank
from configs.resnet_stage2_config import ResNetStage2Config
from store.files import open_to_append

RULE = "=" * 62

_log = logging.getLogger("stage2")


@contextmanager
def run_log(folder: Path, title: str = "") -> Iterator[None]:
    """Within the block, stage2's log lines are appended to training.log in `folder`. Only rank 0 logs.

    If several runs train together, lines that belong to a run with another `title` are left out.
    """
    handler = _open_log(RunFolder(folder).log) if rank() == 0 else logging.NullHandler()
    handler.addFilter(lambda record: getattr(record, "run_title", "") in ("", title))
    with attached(handler):
        yield


class _LogFile(QuietHandler):
    """Appends to a file. Lines are dropped while its disk is full."""

    def __init__(self, path: Path) -> None:
        super().__init__(open_to_append(path))

    def close(self) -> None:
        """Closes the file."""
        with suppress(OSError):
            self.stream.close()
        super().close()


def _open_log(path: Path) -> logging.Handler:
    try:
        return _LogFile(path)
    except OSError as error:
        _log.warning("%s cannot be written (%s); the run goes on without it", path, error.strerror)
        return logging.NullHandler()


def log_configuration(config: ResNetStage2Config) -> None:
    """Logs the configuration."""
    spatial = 7 * config.use_geometric + config.use_scene_context
    for line in (
        RULE,
        "RESNET STAGE2 CONFIGURATION",
        RULE,
        "Model Architecture:",
        "  Type: resnet_relation",
        f"  Backbone: {config.backbone_name}",
        f"  Visual features: {config.visual_feature_dim}D",
        f"  Spatial features: {spatial}D",
        f"  Fusion strategy: {config.fusion_strategy}",
        "",
        "Training:",
        f"  Epochs: {config.epochs}",
        f"  Batch size: {config.batch_size}",
        f"  Learning rate: {config.learning_rate}",
        f"  Optimizer: {config.optimizer}",
        "",
    ):
        _log.info(line)


def log_data(splits: dict[str, Split], sources: dict[str, Source], config: ResNetStage2Config) -> None:
    """Logs the size of each split, and the number of classes over which its MPCA is averaged."""
    _log.info("✅ ResNet Stage2 data loaders created:")
    for name, source in sources.items():
        title = f"{name.capitalize()}:"
        _log.info("   %-6s %s samples, %s batches", title, f"{source.samples:,}", f"{source.batches:,}")
    total = len(config.classes)
    occurring = ", ".join(f"{name} {(split.counts(total) > 0).sum()}" for name, split in splits.items())
    _log.info("   MPCA is the mean over the classes that occur, of %d: %s", total, occurring)
    _log.info("")


def log_train(epoch: int, done: int, samples: int, loss: float) -> None:
    """Logs the loss of one batch, which comes after `done` samples of the epoch."""
    _log.info("Train Epoch: %d [%5d/%d (%3.0f%%)] Loss: %.6f", epoch, done, samples, 100 * done / samples, loss)


def _of_run(title: str) -> dict[str, str]:
    """The attribute of a log record that says which of several runs it belongs to."""
    return {"run_title": title}


def log_validation(record: dict[str, Any], best: bool, title: str = "") -> None:
    """Logs the validation metrics of an epoch, and if they are the best so far.

    `title` precedes the line if several runs train together.
    """
    values = (record["epoch"], record["val_loss"], record["val_accuracy"], record["val_mpca"])
    _log.info("%sVal Epoch %d: Avg Loss: %.6f, Acc: %.4f, MPCA: %.4f", title, *values, extra=_of_run(title))
    if best and not title:
        _log.info("New best model saved! mpca: %.4f", record["val_mpca"])


def log_finished(epoch: int, title: str = "") -> None:
    """Logs that a resumed run needs no more training. See `log_validation` for `title`."""
    _log.info("%sThe run has finished: its last epoch is %d.", title, epoch, extra=_of_run(title))


def log_test(test: dict[str, Any], baselines: dict[str, Any], warnings: Sequence[str] = (), title: str = "") -> None:
    """Logs the test metrics of the best model and the warnings, and without a `title` those of the baselines.

    See `log_validation` for `title`.
    """
    present = f"over {test['classes_present']} of {test['classes']} classes"
    if not title:
        _log.info("")
    values = (test["accuracy"], test["mpca"], present)
    _log.info("%sTest, best model: Acc: %.4f, MPCA: %.4f (%s)", title, *values, extra=_of_run(title))
    for name, metrics in baselines.items() if not title else ():
        _log.info("  baseline %-13s Acc: %.4f, MPCA: %.4f", f"{name}:", metrics["accuracy"], metrics["mpca"])
    for warning in warnings:
        _log.warning("%sWarning: %s.", title, warning, extra=_of_run(title))
