"""Trains fusion heads on the cached features of a store, one head or several at once."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from classify.data.batches import Source, split_persons
from classify.data.cached import CachedFeatures
from classify.data.selection import Split, select_splits
from classify.data.streamed import StreamedFeatures, features_on_device
from classify.model.checkpoint import CACHED, RunInfo
from classify.model.head import Stage2Model, build_head
from classify.report.log import run_log
from classify.run_folder import open_run_folder
from classify.train.drive import drive_together, threads_for
from classify.train.fit import Fitted
from classify.train.head_step import MovingHead
from classify.train.out_of_memory import memory_checked
from classify.train.run import Run, _announce, _spatial, _weights, begin, finish, prepare
from configs.resnet_stage2_config import ResNetStage2Config
from extract.device import pick_device
from store.reader import StoredFeatures
from store.tables import Features, Tables

CACHED_KNN = {"train": 20_000, "val": 4_000}  # pairs at most: exact search costs their product


def train_cached(
    features: Features,
    config: ResNetStage2Config,
    backbone: dict[str, Any],
    *,
    seconds_extract: float = 0.0,
    overwrite: bool = False,
    resume: bool = False,
) -> Run:
    """Trains the head on a store's features and leaves a run folder.

    Args:
        features: a loaded store.
        config: the run; `checkpoint_dir` "" makes a new folder.
        backbone: identity of the store's backbone, plain values; goes into the checkpoints.
        seconds_extract: what the extraction took, for the results.
        overwrite: replace the run in `checkpoint_dir`.
        resume: go on after last.pth in `checkpoint_dir` where there is one.

    Raises:
        SplitError: a part of the split is empty; before anything is written.
        ConfigError: `checkpoint_dir` already holds a run.
        DeviceError, StorageError, CheckpointError, Stage2Error: see `fit`.
    """
    return train_heads(
        features, [config], backbone, seconds_extract=seconds_extract, overwrite=overwrite, resume=resume
    )[0]


def train_heads(
    features: Features | StoredFeatures,
    configs: Sequence[ResNetStage2Config],
    backbone: dict[str, Any],
    *,
    seconds_extract: float = 0.0,
    overwrite: bool = False,
    resume: bool = False,
) -> list[Run]:
    """Trains several heads on a store's features, a step of all at a time, and leaves a run folder of each.

    Each sees its own samples and random numbers, as if it were trained alone; the baselines are computed once, with
    the first one's seed.

    Args:
        configs: of the runs; they differ in seed and checkpoint_dir alone.

    Other arguments, and errors raised, as in `train_cached`.
    """
    config = configs[0]
    tables, device = features.tables, pick_device(config.device)
    splits = select_splits(tables, config)
    folders = [open_run_folder(one, overwrite, resume).path for one in configs]
    with ExitStack() as logs, memory_checked(config.batch_size):
        for folder in folders:
            logs.enter_context(run_log(folder))
        _announce(tables, splits, config)
        visual = features_on_device(features, device, config.feature_memory)
        models = _head_models(configs, visual, tables, splits["train"], device)

        def source(split: Split, balanced: bool = False) -> Source:
            return visual.source(tables, split, config.batch_size, balanced)

        weights = _weights(splits, config)
        data = prepare(config, weights, tables, splits, source, models[0], CACHED_KNN)
        fitted = []
        for one, folder, model in zip(configs, folders, models, strict=True):
            about = RunInfo(CACHED, one, visual.dim, backbone, features.fingerprint, weights)
            title = f"[seed {one.seed}] " if len(configs) > 1 else ""
            fitted.append(Fitted(model, MovingHead(model.head, one), about, folder, title))
        clock = time.monotonic()
        with threads_for(len(configs) * config.batch_size):
            histories = drive_together(
                [begin(one, data, warm=False, resume=resume) for one in fitted],
                [one.moving for one in fitted if isinstance(one.moving, MovingHead)],
                data.objective,
            )
        seconds = {"extract": seconds_extract, **data.seconds, "train": time.monotonic() - clock}
        return [finish(one, data, history, seconds) for one, history in zip(fitted, histories, strict=True)]


def _head_models(
    configs: Sequence[ResNetStage2Config],
    visual: CachedFeatures | StreamedFeatures,
    tables: Tables,
    split: Split,
    device: torch.device,
) -> list[Stage2Model]:
    """A model for each configuration's seed, all of the scale of the training persons."""
    models: list[Stage2Model] = []
    for config in configs:
        torch.manual_seed(config.seed)
        head = build_head(config, visual.dim).to(device)
        if models:
            head.copy_scale(models[0].head)
        else:
            head.fit_scale(visual.chunks(split_persons(tables, split)), _spatial(tables, split, device))
        models.append(Stage2Model(nn.Identity(), head))
    return models
