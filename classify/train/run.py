"""What every training run begins and ends with: data and baselines; test, results and plots."""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from classify.data.batches import Source
from classify.data.class_table import (
    ClassRow,
    check_class_labels,
    check_train_classes,
    class_table,
    class_warnings,
    log_class_table,
)
from classify.data.selection import Split, log_selection, select_splits
from classify.distributed import barrier, broadcast
from classify.evaluate.baselines import knn_baseline, majority_baseline, pair_features, spatial_baseline
from classify.evaluate.history import best_record
from classify.evaluate.metrics import evaluate
from classify.model.checkpoint import load_checkpoint, load_state
from classify.model.head import Stage2Model
from classify.model.losses import Objective, class_weights
from classify.open_run import continue_advice, open_run_folder
from classify.report.log import log_configuration, log_data, log_finished, log_test, run_log
from classify.report.plots import plot_run
from classify.report.results import build_results, write_json
from classify.run_folder import RunFolder
from classify.train.cpu_settings import threads_for_batch
from classify.train.loop import MakeStep, TrainingRun, fit, resume
from configs.panorama import describe, edges_touch
from configs.process.failures import how_to_continue
from configs.ranks import rank
from configs.resnet_stage2_config import ResNetStage2Config
from store.format.ledger import Ledger
from store.tables import Tables

_log = logging.getLogger("stage2")


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, and the content of its final_results.json."""

    folder: Path
    results: dict[str, Any]


class MakeSource(Protocol):
    """Returns the batches of a split: cached features, streamed features or crops."""

    def __call__(self, split: Split, balanced: bool = False) -> Source: ...


@dataclass(frozen=True)
class TrainingData:
    """What the runs that train together share."""

    splits: dict[str, Split]
    class_table: dict[str, ClassRow]  # by class name
    sources: dict[str, Source]
    class_weight: tuple[float, ...]  # (C,)
    objective: Objective
    baselines: dict[str, Any]
    seconds: dict[str, float]


def select_data(tables: Tables, config: ResNetStage2Config) -> dict[str, Split]:
    """The pairs of each split.

    Raises:
        SplitError: a class has no pair in the data, a split is empty, or the train split has a single class.
    """
    check_class_labels(tables, config)
    splits = select_splits(tables, config)
    check_train_classes(splits["train"], config)
    return splits


@contextmanager
def open_run(
    config: ResNetStage2Config, overwrite: bool, resume: bool, log_prefix: str = "", parent: RunFolder | None = None
) -> Iterator[RunFolder]:
    """Opens a run's folder and its log, and says how to continue the run if it is interrupted.

    Raises:
        ConfigError, LockedError, StorageError: see `open_run_folder`.
    """
    with (
        open_run_folder(config, overwrite, resume, parent=parent) as folder,
        run_log(folder.path, log_prefix),
        how_to_continue(lambda: continue_advice(folder)),
    ):
        yield folder


def log_start(tables: Tables, splits: dict[str, Split], config: ResNetStage2Config, ledger: Ledger | None) -> Ledger:
    """Logs the configuration, what was skipped, and the pairs of each class in each split and of none.

    Returns:
        The ledger; if it is None, that of the tables, of which nothing was skipped.
    """
    ledger = ledger or Ledger.of_tables(tables)
    log_configuration(config)
    for line in ledger.lines():
        _log.info("%s", line)
    log_selection(tables, config)
    size = tables.frame_size.T
    touching = int(np.sum(edges_touch(config.panorama, size[0], size[1])))
    _log.info("%s", describe(config.panorama, touching, len(tables.frame_name)))
    table = class_table(tables, config, splits)
    log_class_table(table)
    for warning in class_warnings(table):
        _log.warning("Warning: %s.", warning)
    return ledger


def prepare_data(
    config: ResNetStage2Config,
    tables: Tables,
    splits: dict[str, Split],
    make_source: MakeSource,
    model: Stage2Model,
    knn_pairs: Mapping[str, int],
) -> TrainingData:
    """The batches of each split, the loss, and the three baselines.

    Args:
        model: its backbone gives the features of the kNN baseline, before training.
        knn_pairs: how many pairs of each split the kNN baseline uses at most.
    """
    class_weight = class_weights(splits["train"].counts(len(config.classes)), config.balance)
    objective = Objective.from_config(config, class_weight, model.trainable_parameters()[0].device)
    balanced = config.balance == "sampler"
    sources = {name: make_source(split, balanced and name == "train") for name, split in splits.items()}
    log_data(splits, sources, config)
    clock = time.monotonic()
    knn = _knn_baseline(config, splits, make_source, model, knn_pairs)
    with threads_for_batch(1):
        spatial = spatial_baseline(tables, splits, objective, balanced, config.seed)
    majority = majority_baseline(splits, len(config.classes))
    baselines = {"majority": majority, "spatial_only": spatial, "knn": knn}
    seconds = {"baselines": time.monotonic() - clock}
    table = class_table(tables, config, splits)
    return TrainingData(splits, table, sources, class_weight, objective, baselines, seconds)


def _knn_baseline(
    config: ResNetStage2Config,
    splits: Mapping[str, Split],
    make_source: MakeSource,
    model: Stage2Model,
    knn_pairs: Mapping[str, int],
) -> dict[str, Any]:
    """The kNN baseline on at most `knn_pairs` pairs of each split; their features are freed afterwards."""
    pairs = {}
    for name, split in splits.items():
        sample = split.sample(knn_pairs[name], config.seed)
        if len(sample.pairs) < len(split.pairs):
            sizes = (f"{len(sample.pairs):,}", f"{len(split.pairs):,}", name)
            _log.info("The baseline knn uses %s of %s %s pairs, a random sample, to limit its memory.", *sizes)
        pairs[name] = pair_features(model, make_source(sample))
    return knn_baseline(pairs, len(config.classes))


def train_runs(
    runs: list[TrainingRun], data: TrainingData, make_step: MakeStep, *, warm_start: bool = False, resume: bool = False
) -> float:
    """Trains the runs together, from their start or with `resume` from their last.pth; returns the seconds."""
    clock = time.monotonic()
    for run in runs:
        _begin(run, resume)
    fit(runs, data.sources["train"], data.sources["val"], data.objective, make_step, warm_start=warm_start)
    return time.monotonic() - clock


def _begin(run: TrainingRun, resume_run: bool) -> None:
    barrier()  # rank 0 has opened the folder
    if rank() == 0:
        write_json(run.folder.config, run.config.to_dict())
    torch.manual_seed(run.config.seed)
    if not resume_run:
        return
    device = run.model.trainable_parameters()[0].device
    if broadcast(torch.tensor(float(run.folder.last.exists()), device=device)):
        resume(run, load_checkpoint(run.folder.last, resume=True))
    if run.finished:
        log_finished(run.history[-1]["epoch"], run.log_prefix)


def finish(run: TrainingRun, data: TrainingData, seconds: dict[str, float], ledger: Ledger) -> Run:
    """Tests the best model and writes results and plots; `ledger` is that of the data."""
    clock = time.monotonic()
    barrier()  # rank 0 has written the best model
    load_state(
        run.model, load_checkpoint(run.folder.best_model).model, run.folder.best_model.name
    )  # report what is on the disk
    test = evaluate(run.model, data.sources["test"], data.objective, "test")
    warnings = class_warnings(data.class_table) + _untrained_warning(run)
    log_test(test, data.baselines, warnings, run.log_prefix)
    seconds = seconds | {"evaluate": time.monotonic() - clock}
    results = build_results(run.info, run.history, test, data.baselines, seconds)
    classes = len(run.config.classes)
    results["pairs_per_class"] = {name: split.counts(classes).tolist() for name, split in data.splits.items()}
    results["class_table"] = {name: row.to_dict() for name, row in data.class_table.items()}
    results["warnings"] = warnings
    results["data"] = ledger.to_dict()
    if rank() == 0:
        write_json(run.folder.results, results)
        plot_run(run.folder.path, results, run.history)
    return Run(run.folder.path, results)


def _untrained_warning(run: TrainingRun) -> list[str]:
    """What to know about a fine-tuned run if no epoch is better than the run that it started from."""
    if best_record(run.history)["epoch"] > 0:
        return []
    return [
        "the best epoch is 0: no epoch improved the validation MPCA, so the best model has the weights that "
        "fine-tuning started from"
    ]
