"""Where the lines of a run go: a stream for people, and the run's training.log."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from classify.data.batches import Source
from classify.data.selection import Split
from configs.ranks import rank
from configs.resnet_stage2_config import ResNetStage2Config

NAME = "stage2"
LOG = "training.log"


@contextmanager
def console(stream: TextIO) -> Iterator[None]:
    """Sends the product's log lines, bare, to `stream` for the length of the block; of several ranks, the first's."""
    with _attached(logging.StreamHandler(stream) if rank() == 0 else logging.NullHandler()):
        yield


@contextmanager
def run_log(folder: Path) -> Iterator[None]:
    """Appends the product's log lines, bare, to training.log in `folder` for the length of the block."""
    with _attached(logging.FileHandler(folder / LOG, encoding="utf-8") if rank() == 0 else logging.NullHandler()):
        yield


@contextmanager
def _attached(handler: logging.Handler) -> Iterator[None]:
    logger = logging.getLogger(NAME)
    level, propagate = logger.level, logger.propagate
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # a root handler would print every line twice
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.setLevel(level)
        logger.propagate = propagate


log = logging.getLogger("stage2")
RULE = "=" * 62


def log_configuration(config: ResNetStage2Config) -> None:
    """The configuration block."""
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
        log.info(line)


def log_data(splits: dict[str, Split], sources: dict[str, Source], config: ResNetStage2Config) -> None:
    """The data loaders block, and how many classes each split's MPCA is a mean of."""
    log.info("✅ ResNet Stage2 data loaders created:")
    for name, source in sources.items():
        title = f"{name.capitalize()}:"
        log.info("   %-6s %s samples, %s batches", title, f"{source.samples:,}", f"{source.batches:,}")
    total = len(config.classes)
    occurring = ", ".join(f"{name} {(split.counts(total) > 0).sum()}" for name, split in splits.items())
    log.info("   MPCA is the mean over the classes that occur, of %d: %s", total, occurring)
    log.info("")


def log_train(epoch: int, done: int, samples: int, loss: float) -> None:
    """A line every `log_interval` batches; `done` samples came before this batch, `loss` is the batch's."""
    log.info("Train Epoch: %d [%5d/%d (%3.0f%%)] Loss: %.6f", epoch, done, samples, 100 * done / samples, loss)


def log_validation(record: dict[str, Any], best: bool, title: str = "") -> None:
    """The epoch's figures on the validation split, and whether they are the best so far; one of several is titled."""
    figures = (record["epoch"], record["val_loss"], record["val_accuracy"], record["val_mpca"])
    log.info("%sVal Epoch %d: Avg Loss: %.6f, Acc: %.4f, MPCA: %.4f", title, *figures)
    if best and not title:
        log.info("New best model saved! mpca: %.4f", record["val_mpca"])


def log_test(test: dict[str, Any], baselines: dict[str, Any], title: str = "") -> None:
    """The best model's figures on the test split, and those of the baselines; one of several is titled."""
    over = f"over {test['classes_present']} of {test['classes']} classes"
    if not title:
        log.info("")
    log.info("%sTest, best model: Acc: %.4f, MPCA: %.4f (%s)", title, test["accuracy"], test["mpca"], over)
    for name, figures in baselines.items() if not title else ():
        log.info("  baseline %-13s Acc: %.4f, MPCA: %.4f", f"{name}:", figures["accuracy"], figures["mpca"])
