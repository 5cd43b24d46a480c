"""Trains fusion heads on the cached features of a store: one head, or those of several seeds at once."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from classify.data.batches import Source, pair_tensors, split_persons
from classify.data.cached import CachedFeatures
from classify.data.selection import Split
from classify.data.streamed import StreamedFeatures, features_on_device
from classify.model.checkpoint import CACHED, RunInfo
from classify.model.head import Stage2Model, build_head
from classify.run_folder import RunFolder
from classify.train.autograd_step import AutogradStep
from classify.train.cpu_settings import keep_freed_memory, threads_for_batch
from classify.train.head_step import HeadState, HeadStep
from classify.train.loop import OptimizerState, Step, TrainingRun
from classify.train.out_of_memory import report_out_of_memory
from classify.train.run import (
    Run,
    TrainingData,
    finish,
    log_start,
    open_run,
    prepare_data,
    select_data,
    train_runs,
)
from configs.resnet_stage2_config import ResNetStage2Config
from extract.device import pick_device
from store.format.ledger import Ledger
from store.reader import StoredFeatures
from store.tables import Features, Tables

# Exact search costs the product of train pairs and the others, and holds 8 bytes x the feature dimension for each pair.
KNN_PAIRS = {"train": 20_000, "val": 4_000, "test": 20_000}


def train_cached(
    features: Features | StoredFeatures,
    configs: Sequence[ResNetStage2Config],
    backbone: dict[str, Any],
    *,
    ledger: Ledger | None = None,
    precision: dict[str, Any] | None = None,
    step: str = "fused",
    seconds_extract: float = 0.0,
    overwrite: bool = False,
    resume: bool = False,
    parent: RunFolder | None = None,
) -> list[Run]:
    """Trains a head for each configuration on a store's features and writes a run folder for each.

    Each head has its own sample order and random numbers, as if trained alone. The baselines use the first seed.

    Args:
        features: a loaded store, or one that is streamed from the disk.
        configs: they differ in seed and checkpoint_dir only; checkpoint_dir "" creates a new folder.
        backbone: identity of the store's backbone, plain values; saved in the checkpoints.
        ledger: of the store; None if nothing was skipped.
        precision: of features that are not float32, plain values; saved in the checkpoints.
        step: "fused": all heads at once by hand-written gradients (`HeadStep`); "autograd": in turn (`AutogradStep`).
        overwrite, resume: replace the run in `checkpoint_dir`, or continue it from its last.pth if there is one.
        parent: the open folder of all seeds, if `configs` are the seeds of one run.

    Raises:
        SplitError: a part of the split is empty. ConfigError: `checkpoint_dir` holds a run. Others: see `fit`.
    """
    config, tables, device = configs[0], features.tables, pick_device(configs[0].device)
    splits = select_data(tables, config)
    with ExitStack() as opened, report_out_of_memory(config.batch_size):
        folders = _open_folders(opened, configs, overwrite, resume, parent)
        ledger = log_start(tables, splits, config, ledger)
        visual = features_on_device(features, device, config.feature_memory)

        def make_source(split: Split, balanced: bool = False) -> Source:
            return visual.source(tables, split, config.batch_size, balanced)

        with threads_for_batch(1):  # copying rows and summing them is bound by memory
            models = _build_models(configs, visual, tables, splits["train"], device)
            data = prepare_data(config, tables, splits, make_source, models[0], KNN_PAIRS)
        known: Any = (visual.dim, backbone, features.fingerprint, data.class_weight, {}, precision or {})
        infos = [RunInfo(CACHED, one, *known) for one in configs]
        train = _train_fused if step == "fused" else _train_by_autograd
        runs, train_seconds = train(models, infos, folders, data, resume)
        seconds = {"extract": seconds_extract, **data.seconds, "train": train_seconds}
        with threads_for_batch(config.batch_size):
            return [finish(run, data, seconds, ledger) for run in runs]


def _open_folders(
    opened: ExitStack,
    configs: Sequence[ResNetStage2Config],
    overwrite: bool,
    resume: bool,
    parent: RunFolder | None,
) -> list[RunFolder]:
    prefixes = [_log_prefix(config, len(configs)) for config in configs]
    pairs = zip(configs, prefixes, strict=True)
    return [opened.enter_context(open_run(config, overwrite, resume, prefix, parent)) for config, prefix in pairs]


def _train_fused(
    models: list[Stage2Model], infos: list[RunInfo], folders: list[RunFolder], data: TrainingData, resume: bool
) -> tuple[list[TrainingRun], float]:
    """Trains the heads together, a step of all of them at a time. Returns the runs and the seconds."""
    states = [HeadState(model.head, info.config) for model, info in zip(models, infos, strict=True)]
    runs = _training_runs(models, states, infos, folders)
    state_of = dict(zip(runs, states, strict=True))

    def make_step(group: Sequence[TrainingRun]) -> Step:
        return HeadStep([state_of[run] for run in group], data.objective)

    keep_freed_memory()
    with threads_for_batch(len(runs) * infos[0].config.batch_size):
        return runs, train_runs(runs, data, make_step, resume=resume)


def _train_by_autograd(
    models: list[Stage2Model], infos: list[RunInfo], folders: list[RunFolder], data: TrainingData, resume: bool
) -> tuple[list[TrainingRun], float]:
    """Trains the heads one after another, because dropout draws from PyTorch's global generator."""
    steps = [AutogradStep(model, data.objective, info.config) for model, info in zip(models, infos, strict=True)]
    runs = _training_runs(models, steps, infos, folders)
    step_of = dict(zip(runs, steps, strict=True))
    with threads_for_batch(infos[0].config.batch_size):
        return runs, sum(
            train_runs([run], data, lambda group: step_of[group[0]].step_alone, resume=resume) for run in runs
        )


def _training_runs(
    models: list[Stage2Model],
    optimizers: Sequence[OptimizerState],
    infos: list[RunInfo],
    folders: list[RunFolder],
) -> list[TrainingRun]:
    return [
        TrainingRun(model, optimizer, info, folder, _log_prefix(info.config, len(models)))
        for model, optimizer, info, folder in zip(models, optimizers, infos, folders, strict=True)
    ]


def _log_prefix(config: ResNetStage2Config, runs: int) -> str:
    return f"[seed {config.seed}] " if runs > 1 else ""


def _build_models(
    configs: Sequence[ResNetStage2Config],
    visual: CachedFeatures | StreamedFeatures,
    tables: Tables,
    split: Split,
    device: torch.device,
) -> list[Stage2Model]:
    """A model for each configuration's seed; all standardise by the same training persons and pairs."""
    models: list[Stage2Model] = []
    for config in configs:
        torch.manual_seed(config.seed)
        head = build_head(config, visual.dim).to(device)
        if models:
            head.copy_scale(models[0].head)
        else:
            head.fit_scale(visual.chunks(split_persons(tables, split)), pair_tensors(tables, split, device)[0])
        models.append(Stage2Model(nn.Identity(), head))
    return models
