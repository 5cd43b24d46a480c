"""Trains backbone and head together on crops."""

from typing import Any

import torch
from torch import Tensor

from classify.data.batches import PairBatch, Source, pair_tensors
from classify.data.crop_cache import build_crop_cache
from classify.data.crops import CropSource
from classify.data.identity import CropInputs, data_digests
from classify.data.selection import Split
from classify.model.checkpoint import END_TO_END, Checkpoint, RunInfo, load_state, substate
from classify.model.head import Stage2Model, build_head
from classify.run_folder import RunFolder
from classify.train.autograd_step import AutogradStep
from classify.train.loop import TrainingRun
from classify.train.out_of_memory import report_out_of_memory
from classify.train.run import MakeSource, Run, finish, log_start, open_run, prepare_data, select_data, train_runs
from configs.errors import CheckpointError, DataError
from configs.ranks import rank
from configs.resnet_stage2_config import ResNetStage2Config
from configs.settings import HEAD, names_with_role
from extract.backbones.resnet import Backbone
from extract.device import pick_device
from extract.images.file_cache import FileCache
from store.format.ledger import Ledger
from store.tables import Tables

# Fewer than for cached features: each crop has to be read and forwarded.
KNN_PAIRS = {"train": 4_000, "val": 2_000, "test": 20_000}
SCALE_PAIRS = 512  # the head standardises features by the statistics of at most 1,024 persons


def train_end_to_end(
    tables: Tables,
    crops: CropInputs,
    backbone: Backbone,
    config: ResNetStage2Config,
    identity: dict[str, Any],
    *,
    ledger: Ledger | None = None,
    images: FileCache | None = None,
    start: Checkpoint | None = None,
    overwrite: bool = False,
    resume: bool = False,
    parent: RunFolder | None = None,
) -> Run:
    """Trains backbone and head on crops and writes a run folder.

    Args:
        tables, crops: with frame sizes and spatial features; the persons' crops, from images or from a store.
        backbone, identity: the initial weights, and their identity in the checkpoints. Parameters may be frozen.
        ledger, images: see `TrainingCrops`; without a ledger, nothing was skipped.
        start: a finished run's best model, to start from its head, and its backbone if that was trained.
        overwrite, resume, parent: see `train_cached`.

    Raises:
        CheckpointError: `start` does not fit the configuration. DataError: a frame's size is not known, or an image
            cannot be read. SplitError, ConfigError, DeviceError, StorageError, Stage2Error: see `train_cached`.
    """
    device = pick_device(config.device)
    splits = select_data(tables, config)
    _check_sizes(tables, splits)
    model = _build_model(backbone, config, start)
    with report_out_of_memory(config.batch_size) as trial, open_run(config, overwrite, resume, parent=parent) as folder:
        ledger = log_start(tables, splits, config, ledger)
        _save_images(images, folder)
        model.to(device)
        persons = build_crop_cache(crops, tables, splits, backbone, config)

        def make_source(split: Split, balanced: bool = False) -> Source:
            return CropSource(tables, persons, split, config, device=device, balanced=balanced)

        if start is None:  # else the scale is that of `start`
            _fit_scale(model, make_source, tables, splits["train"], config)
        data = prepare_data(config, tables, splits, make_source, model, KNN_PAIRS)
        step = AutogradStep(model, data.objective, config)
        trial.train = lambda pairs: _train_on_black_crops(step, pairs, config, device)
        used = data_digests(tables, splits, crops)
        info = RunInfo(END_TO_END, config, backbone.out_dim, identity, "", data.class_weight, used)
        run = TrainingRun(model, step, info, folder)
        seconds = train_runs([run], data, lambda _: step.step_alone, warm_start=start is not None, resume=resume)
        return finish(run, data, {"extract": 0.0, **data.seconds, "train": seconds}, ledger)


def _save_images(images: FileCache | None, folder: RunFolder) -> None:
    if images is not None and rank() == 0:
        images.save(folder.images)


def _fit_scale(
    model: Stage2Model, make_source: MakeSource, tables: Tables, split: Split, config: ResNetStage2Config
) -> None:
    """Standardises the head's features by a sample of the training split."""
    sample = _person_features(model, make_source(split.sample(SCALE_PAIRS, config.seed)))
    model.head.fit_scale(sample, pair_tensors(tables, split, model.trainable_parameters()[0].device)[0])


@torch.no_grad()
def _person_features(model: Stage2Model, source: Source) -> list[Tensor]:
    """The backbone's output (P, D) for the persons of each batch, in evaluation mode."""
    model.eval()
    return [model.features(batch) for batch in source.epoch()]


def _build_model(backbone: Backbone, config: ResNetStage2Config, start: Checkpoint | None) -> Stage2Model:
    """The model with new head weights, or with those of `start`."""
    torch.manual_seed(config.seed)
    model = Stage2Model(backbone, build_head(config, backbone.out_dim))
    if start is not None:
        _load_start(model, start, config)
    return model


def _load_start(model: Stage2Model, start: Checkpoint, config: ResNetStage2Config) -> None:
    """Loads the weights of `start`. Raises CheckpointError if its head differs; the setting is named."""
    for name in names_with_role(ResNetStage2Config, HEAD):
        old, new = getattr(start.info.config, name), getattr(config, name)
        if old != new:
            raise CheckpointError(f"the run to start from has {name} {old!r}, this run has {new!r}; use the same")
    if start.info.kind == END_TO_END:
        load_state(model, start.model, "the run to start from")
    else:
        load_state(model.head, substate(start.model, "head."), "the run to start from")


def _check_sizes(tables: Tables, splits: dict[str, Split]) -> None:
    """Raises DataError if the size of a frame is not known, which the spatial features need."""
    for split in splits.values():
        frames = tables.pair_frame[split.pairs]
        unknown = frames[(tables.frame_size[frames] <= 0).any(axis=1)]
        if len(unknown):
            frame = int(unknown[0])
            scene, name = tables.scenes[int(tables.frame_scene[frame])], tables.frame_name[frame]
            raise DataError(f"the size of {scene}/{name} is not known; training on crops needs its image")


def _train_on_black_crops(step: AutogradStep, pairs: int, config: ResNetStage2Config, device: torch.device) -> None:
    """Runs two training steps on all-black crops; the second also holds the optimizer state."""
    crops = torch.zeros((2 * pairs, 3, config.crop_size, config.crop_size), dtype=torch.uint8, device=device)
    rows = torch.arange(2 * pairs, device=device).view(2, -1)
    label = torch.zeros(pairs, dtype=torch.int64, device=device)
    for _ in range(2):
        step(PairBatch(crops, rows[0], rows[1], torch.zeros((pairs, 8), device=device), label), 0.0)
