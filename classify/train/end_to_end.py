"""A whole training run, from samples to results, as straight-line calls."""

import time
from typing import Any

import torch
from torch import Tensor

from classify.data.batches import PairBatch, Source
from classify.data.crop_cache import PersonInputs, build_crop_cache
from classify.data.crops import CropSource
from classify.data.selection import Split, select_splits
from classify.model.checkpoint import END_TO_END, Checkpoint, RunInfo, load_state, substate
from classify.model.head import Stage2Model, build_head
from classify.report.log import run_log
from classify.run_folder import open_run_folder
from classify.train.autograd_step import AutogradStep
from classify.train.drive import drive
from classify.train.fit import Fitted
from classify.train.out_of_memory import memory_checked
from classify.train.run import Run, _announce, _spatial, _weights, begin, finish, prepare
from configs.errors import CheckpointError, DataError
from configs.resnet_stage2_config import ResNetStage2Config
from configs.settings import HEAD, names_with_role
from extract.backbones.resnet import Backbone
from extract.device import pick_device
from store.tables import Tables

CROPS_KNN = {"train": 4_000, "val": 2_000}  # fewer, since each has to be decoded and forwarded
SCALE_PAIRS = 512  # at most 1,024 persons fit the scale of an end-to-end head


def train_end_to_end(
    tables: Tables,
    crops: PersonInputs,
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
    splits = select_splits(tables, config)
    _check_sizes(tables, splits)
    torch.manual_seed(config.seed)
    model = Stage2Model(backbone, build_head(config, backbone.out_dim))
    if start is not None:
        _start_from(model, start, config)
    folder = open_run_folder(config, overwrite, resume).path
    with run_log(folder), memory_checked(config.batch_size) as trial:
        _announce(tables, splits, config)
        model.to(device)
        persons = build_crop_cache(crops, tables, splits, backbone, config)

        def source(split: Split, balanced: bool = False) -> Source:
            return CropSource(tables, persons, split, config, device=device, balanced=balanced)

        if start is None:
            sample = splits["train"].sample(SCALE_PAIRS, config.seed)
            model.head.fit_scale(_person_features(model, source(sample)), _spatial(tables, splits["train"], device))
        weights = _weights(splits, config)
        data = prepare(config, weights, tables, splits, source, model, CROPS_KNN)
        step = AutogradStep(model, data.objective, config)
        trial.train = lambda pairs: _try(step, pairs, config, device)
        about = RunInfo(END_TO_END, config, backbone.out_dim, identity, "", weights)
        fitted = Fitted(model, step, about, folder)
        clock = time.monotonic()
        history = drive(begin(fitted, data, warm=start is not None, resume=resume), step)
        seconds = {"extract": 0.0, **data.seconds, "train": time.monotonic() - clock}
        return finish(fitted, data, history, seconds)


@torch.no_grad()
def _person_features(model: Stage2Model, source: Source) -> list[Tensor]:
    """The backbone's output (P, D) for the persons of each batch of a source, in evaluation mode."""
    model.eval()
    return [model.features(batch) for batch in source.epoch()]


def _start_from(model: Stage2Model, start: Checkpoint, config: ResNetStage2Config) -> None:
    """Raises CheckpointError where `start` answers another question or is another head; the setting is named."""
    for name in names_with_role(ResNetStage2Config, HEAD):
        old, new = getattr(start.info.config, name), getattr(config, name)
        if old != new:
            raise CheckpointError(f"the run to start from has {name} {old!r}, this one {new!r}; use the same")
    if start.info.kind == END_TO_END:
        load_state(model, start.model, "the run to start from")
    else:
        load_state(model.head, substate(start.model, "head."), "the run to start from")


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
