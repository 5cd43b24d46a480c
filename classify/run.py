"""A whole training run, from samples to results, as straight-line calls."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from classify.baselines import knn, majority, pair_features
from classify.batches import CachedSource, Source, Visual, training_persons
from classify.checkpoint import BEST, CACHED, END_TO_END, LAST, About, Checkpoint, load, part, restore
from classify.crop_batches import CropSource
from classify.evaluate import evaluate
from classify.fit import fit
from classify.head import build_head
from classify.logs import run_log
from classify.losses import Objective, class_weights
from classify.model import Stage2Model
from classify.plots import plot_run
from classify.progress import log_configuration, log_data, log_test
from classify.results import CONFIG, RESULTS, results_of, write_json
from classify.run_folder import open_run_folder
from classify.selection import Split, log_selection, select
from classify.spatial_baseline import spatial_only
from configs.errors import CheckpointError, DataError, DeviceError
from configs.resnet_stage2_config import ResNetStage2Config
from extract.backbone import Backbone
from extract.device import pick_device
from store.tables import Features, Tables

CACHED_KNN = {"train": 20_000, "val": 4_000}  # pairs at most: exact search costs their product
CROPS_KNN = {"train": 4_000, "val": 2_000}  # fewer, since each has to be decoded and forwarded
SCALE_PAIRS = 512  # at most 1,024 persons fit the scale of an end-to-end head
SMALL_BATCH = 128  # pairs; up to here one thread trains a head faster than two
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


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, and the content of its final_results.json."""

    folder: Path
    results: dict[str, Any]


class MakeSource(Protocol):
    """Makes the source of a split's samples; in it lies all that differs between the modes."""

    def __call__(self, split: Split, balanced: bool = False) -> Source: ...


@dataclass(frozen=True)
class _Job:
    """What both modes hand to the part that they share."""

    about: About
    folder: Path
    tables: Tables
    splits: dict[str, Split]
    source: MakeSource
    knn_pairs: dict[str, int]


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
    tables, device = features.tables, pick_device(config.device)
    splits = select(tables, config)
    folder = open_run_folder(config, overwrite, resume)
    with run_log(folder), _memory_checked():
        _announce(tables, splits, config)
        visual = Visual.load(features, device)
        dim = visual.upright.shape[1]
        torch.manual_seed(config.seed)
        head = build_head(config, dim).to(device)
        persons = torch.from_numpy(training_persons(tables, splits["train"])).to(device)
        head.fit_scale(visual.upright[persons], _spatial(tables, splits["train"], device))

        def source(split: Split, balanced: bool = False) -> Source:
            return CachedSource(tables, visual, split, config.batch_size, balanced)

        about = About(CACHED, config, dim, backbone, features.fingerprint, _weights(splits, config))
        job = _Job(about, folder, tables, splits, source, CACHED_KNN)
        return _run(job, Stage2Model(nn.Identity(), head), seconds_extract, resume=resume)


def train_end_to_end(
    tables: Tables,
    image_paths: Sequence[Path],
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
        image_paths: (F,) the image of each frame.
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
    with run_log(folder), _memory_checked():
        _announce(tables, splits, config)
        model.to(device)

        def source(split: Split, balanced: bool = False) -> Source:
            return CropSource(tables, image_paths, split, config, device=device, balanced=balanced)

        if start is None:
            sample = splits["train"].sample(SCALE_PAIRS, config.seed)
            model.head.fit_scale(_person_features(model, source(sample)), _spatial(tables, splits["train"], device))
        about = About(END_TO_END, config, backbone.out_dim, identity, "", _weights(splits, config))
        job = _Job(about, folder, tables, splits, source, CROPS_KNN)
        return _run(job, model, 0.0, warm=start is not None, resume=resume)


def _run(job: _Job, model: Stage2Model, seconds_extract: float, *, warm: bool = False, resume: bool = False) -> Run:
    """Sources -> baselines -> fit -> test of the best model -> results -> plots."""
    config, splits = job.about.config, job.splits
    objective = Objective.of(config, job.about.class_weight, model.trainable()[0].device)
    sources = {name: job.source(split, _balanced(name, config)) for name, split in splits.items()}
    log_data(splits, sources, config)
    write_json(job.folder / CONFIG, config.to_dict())
    clock = time.monotonic()
    baselines = _baselines(job, model, objective)
    seconds = {"extract": seconds_extract, "baselines": time.monotonic() - clock}

    clock = time.monotonic()
    last = load(job.folder / LAST, resume=True) if resume and (job.folder / LAST).exists() else None
    with _threads(job.about):
        history = fit(
            model,
            sources["train"],
            sources["val"],
            objective,
            job.about,
            folder=job.folder,
            warm=warm,
            resume=last,
        )
    seconds["train"] = time.monotonic() - clock

    clock = time.monotonic()
    restore(model, load(job.folder / BEST).model, BEST)  # what is reported is what is on the disk
    test = evaluate(model, sources["test"], objective, "test")
    seconds["evaluate"] = time.monotonic() - clock
    log_test(test, baselines)
    results = results_of(job.about, history, test, baselines, seconds)
    write_json(job.folder / RESULTS, results)
    plot_run(job.folder, results, history)
    return Run(job.folder, results)


def _baselines(job: _Job, model: Stage2Model, objective: Objective) -> dict[str, Any]:
    """The three baselines on the test split, the neighbours on the features that the backbone starts with."""
    config, total = job.about.config, len(job.about.config.classes)
    pairs = {}
    for name, split in job.splits.items():
        sample = split.sample(job.knn_pairs.get(name, len(split.pairs)), config.seed)
        pairs[name] = pair_features(model.backbone, job.source(sample))
    return {
        "majority": majority(job.splits, total),
        "spatial_only": spatial_only(job.tables, job.splits, objective, config.balance == "sampler", config.seed),
        "knn": knn(pairs, total),
    }


def _announce(tables: Tables, splits: dict[str, Split], config: ResNetStage2Config) -> None:
    log_configuration(config)
    log_selection(tables, config, splits)


def _weights(splits: dict[str, Split], config: ResNetStage2Config) -> tuple[float, ...]:
    return class_weights(splits["train"].counts(len(config.classes)), config.balance)


def _balanced(name: str, config: ResNetStage2Config) -> bool:
    return name == "train" and config.balance == "sampler"


def _spatial(tables: Tables, split: Split, device: torch.device) -> Tensor:
    """(m, 8) float32 spatial features of a split's pairs."""
    return torch.from_numpy(tables.spatial[split.pairs].astype(np.float32)).to(device)


@torch.no_grad()
def _person_features(model: Stage2Model, source: Source) -> Tensor:
    """(P, D) the backbone's output for the persons of a source, in evaluation mode."""
    model.eval()
    return torch.cat([model.backbone(batch.persons) for batch in source.epoch()])


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


@contextmanager
def _threads(about: About) -> Iterator[None]:
    """One thread for a head on small batches: its operators are too short to share, and waiting for a busy core
    costs more than the other one brings."""
    threads = torch.get_num_threads()
    if about.kind == CACHED and about.config.batch_size <= SMALL_BATCH:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _memory_checked() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError("the GPU's memory is full; use a smaller --batch_size, or --freeze_backbone") from error
