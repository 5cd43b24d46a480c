"""A whole training run, from samples to results, as straight-line calls."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from classify.batches import PairBatch, Source, Visual, training_persons
from classify.checkpoint import CACHED, END_TO_END, About, Checkpoint, part, restore
from classify.crop_batches import CropSource
from classify.drive import drive, drive_together
from classify.fit import Fitted
from classify.head import build_head
from classify.head_step import MovingHead
from classify.logs import run_log
from classify.losses import class_weights
from classify.memory import memory_checked
from classify.model import Stage2Model
from classify.person_cache import PersonSource, keep_persons
from classify.progress import log_configuration
from classify.run_folder import open_run_folder
from classify.run_parts import Run, begin, finish, prepare
from classify.selection import Split, log_selection, select
from classify.step import AutogradStep
from classify.streamed import StreamedVisual, visual_of
from classify.threads import threads_for
from configs.errors import CheckpointError, DataError
from configs.resnet_stage2_config import ResNetStage2Config
from extract.backbone import Backbone
from extract.device import pick_device
from store.chunks import StoredFeatures
from store.tables import Features, Tables

CACHED_KNN = {"train": 20_000, "val": 4_000}  # pairs at most: exact search costs their product
CROPS_KNN = {"train": 4_000, "val": 2_000}  # fewer, since each has to be decoded and forwarded
SCALE_PAIRS = 512  # at most 1,024 persons fit the scale of an end-to-end head
_SAME_HEAD = (
    "backbone_name",
    "crop_size",
    "visual_feature_dim",
    "fusion_strategy",
    "hidden_dim",
    "use_geometric",
    "use_scene_context",
    "classes",
    "split",
)


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
    splits = select(tables, config)
    folders = [open_run_folder(one, overwrite, resume) for one in configs]
    with ExitStack() as logs, memory_checked(config.batch_size):
        for folder in folders:
            logs.enter_context(run_log(folder))
        _announce(tables, splits, config)
        visual = visual_of(features, device, config.feature_memory)
        models = _head_models(configs, visual, tables, splits["train"], device)

        def source(split: Split, balanced: bool = False) -> Source:
            return visual.source(tables, split, config.batch_size, balanced)

        weights = _weights(splits, config)
        data = prepare(config, weights, tables, splits, source, models[0], CACHED_KNN)
        fitted = []
        for one, folder, model in zip(configs, folders, models, strict=True):
            about = About(CACHED, one, visual.dim, backbone, features.fingerprint, weights)
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
    visual: Visual | StreamedVisual,
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
            head.fit_scale(visual.chunks(training_persons(tables, split)), _spatial(tables, split, device))
        models.append(Stage2Model(nn.Identity(), head))
    return models


def train_end_to_end(
    tables: Tables,
    crops: PersonSource,
    backbone: Backbone,
    config: ResNetStage2Config,
    identity: dict[str, Any],
    *,
    start: Checkpoint | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> Run:
    """Trains backbone and head on crops and leaves a run folder.

    Args:
        tables: with frame sizes and spatial features.
        crops: of the tables' persons, from images or from a store.
        backbone: where training starts; parameters that need no gradient stay as they are.
        config: the run.
        identity: of the backbone's starting weights, plain values; goes into the checkpoints.
        start: a finished run's best model, whose head (and backbone, where it was trained) is where training starts;
            it is evaluated before the first step, and that equals the run's best evaluation.
        overwrite, resume: see `train_cached`.

    Raises:
        CheckpointError: `start` does not fit the configuration.
        DataError: a frame's size is not known; FrameError: an image cannot be read.
        SplitError, ConfigError, DeviceError, StorageError, Stage2Error: see `train_cached`.
    """
    device = pick_device(config.device)
    splits = select(tables, config)
    _check_sizes(tables, splits)
    torch.manual_seed(config.seed)
    model = Stage2Model(backbone, build_head(config, backbone.out_dim))
    if start is not None:
        _start_from(model, start, config)
    folder = open_run_folder(config, overwrite, resume)
    with run_log(folder), memory_checked(config.batch_size) as trial:
        _announce(tables, splits, config)
        model.to(device)
        persons = keep_persons(crops, tables, splits, backbone, config)

        def source(split: Split, balanced: bool = False) -> Source:
            return CropSource(tables, persons, split, config, device=device, balanced=balanced)

        if start is None:
            sample = splits["train"].sample(SCALE_PAIRS, config.seed)
            model.head.fit_scale(_person_features(model, source(sample)), _spatial(tables, splits["train"], device))
        weights = _weights(splits, config)
        data = prepare(config, weights, tables, splits, source, model, CROPS_KNN)
        step = AutogradStep(model, data.objective, config)
        trial.train = lambda pairs: _try(step, pairs, config, device)
        about = About(END_TO_END, config, backbone.out_dim, identity, "", weights)
        fitted = Fitted(model, step, about, folder)
        clock = time.monotonic()
        history = drive(begin(fitted, data, warm=start is not None, resume=resume), step)
        seconds = {"extract": 0.0, **data.seconds, "train": time.monotonic() - clock}
        return finish(fitted, data, history, seconds)


def _announce(tables: Tables, splits: dict[str, Split], config: ResNetStage2Config) -> None:
    log_configuration(config)
    log_selection(tables, config, splits)


def _weights(splits: dict[str, Split], config: ResNetStage2Config) -> tuple[float, ...]:
    return class_weights(splits["train"].counts(len(config.classes)), config.balance)


def _spatial(tables: Tables, split: Split, device: torch.device) -> Tensor:
    """(m, 8) float32 spatial features of a split's pairs."""
    return torch.from_numpy(tables.spatial[split.pairs].astype(np.float32)).to(device)


@torch.no_grad()
def _person_features(model: Stage2Model, source: Source) -> list[Tensor]:
    """The backbone's output (P, D) for the persons of each batch of a source, in evaluation mode."""
    model.eval()
    return [model.features(batch) for batch in source.epoch()]


def _start_from(model: Stage2Model, start: Checkpoint, config: ResNetStage2Config) -> None:
    """Raises CheckpointError where `start` answers another question or is another head; the setting is named."""
    for name in _SAME_HEAD:
        old, new = getattr(start.about.config, name), getattr(config, name)
        if old != new:
            raise CheckpointError(f"the run to start from has {name} {old!r}, this one {new!r}; use the same")
    if start.about.kind == END_TO_END:
        restore(model, start.model, "the run to start from")
    else:
        restore(model.head, part(start.model, "head."), "the run to start from")


def _check_sizes(tables: Tables, splits: dict[str, Split]) -> None:
    """The spatial features need each frame's size."""
    for split in splits.values():
        frames = tables.pair_frame[split.pairs]
        unknown = frames[(tables.frame_size[frames] <= 0).any(axis=1)]
        if len(unknown):
            frame = int(unknown[0])
            scene, name = tables.scenes[int(tables.frame_scene[frame])], tables.frame_name[frame]
            raise DataError(f"the size of {scene}/{name} is not known; its image must be there for training on crops")


def _try(step: AutogradStep, pairs: int, config: ResNetStage2Config, device: torch.device) -> None:
    """Two steps, the second with all that the first one leaves, on `pairs` pairs of people, black as night."""
    crops = torch.zeros((2 * pairs, 3, config.crop_size, config.crop_size), dtype=torch.uint8, device=device)
    rows = torch.arange(2 * pairs, device=device).view(2, -1)
    label = torch.zeros(pairs, dtype=torch.int64, device=device)
    for _ in range(2):
        step(PairBatch(crops, rows[0], rows[1], torch.zeros((pairs, 8), device=device), label), 0.0)
