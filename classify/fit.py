"""One fit for both modes: cached features and crops, head alone and end to end."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classify.batches import Source
from classify.checkpoint import BEST, LAST, About, Checkpoint, restore, save
from classify.evaluate import evaluate
from classify.history import Record, best_of, epochs_without_gain, write_history
from classify.losses import Objective
from classify.model import Stage2Model
from classify.progress import log_train, log_validation
from classify.schedule import learning_rate
from classify.step import AutogradStep, Step
from configs.errors import CheckpointError, Stage2Error
from configs.resnet_stage2_config import ResNetStage2Config

METRICS = "metrics.jsonl"
# what may differ on resuming
_FREE = {"checkpoint_dir", "crop_cache", "data_path", "device", "log_interval", "num_workers", "weights"}


@dataclass(frozen=True)
class _Moving:
    """What training moves, and resuming brings back."""

    model: Stage2Model
    step: Step
    generator: torch.Generator  # orders the samples; on the CPU


def fit(
    model: Stage2Model,
    train: Source,
    val: Source,
    objective: Objective,
    about: About,
    *,
    folder: Path,
    warm: bool = False,
    resume: Checkpoint | None = None,
) -> list[Record]:
    """Trains until the last epoch, or until the validation MPCA has not risen for `patience` epochs.

    Each epoch leaves last.pth and metrics.jsonl in `folder`, each new best one best_model.pth. A `warm` model is
    evaluated before its first step, as epoch 0, and kept where training never beats it. With `resume`, goes on after
    that checkpoint's epoch, to the same numbers as without the interruption. Random numbers come from PyTorch's
    global generator, which the caller seeds, and from one seeded with the configuration's seed.

    Returns:
        the history: one record an epoch.

    Raises:
        Stage2Error: the loss is no longer finite.
        CheckpointError: `resume` is of another run.
    """
    config = about.config
    moving = _Moving(model, AutogradStep(model, objective, config), torch.Generator().manual_seed(config.seed))
    history: list[Record] = []
    if resume is not None:
        history = _resume(resume, about, moving)
    elif warm:
        history = [{"epoch": 0, "learning_rate": 0.0, "train_loss": None} | _validate(model, val, objective)]
        _keep(moving, history, about, folder)
    while not _finished(history, config):
        epoch = history[-1]["epoch"] + 1 if history else 1
        loss = _train_epoch(moving, train, config, epoch)
        rate = _rate(config, epoch * train.batches - 1, train.batches)
        record = {"epoch": epoch, "learning_rate": rate, "train_loss": loss}
        history.append(record | _validate(model, val, objective))
        _keep(moving, history, about, folder)
    return history


def _train_epoch(moving: _Moving, source: Source, config: ResNetStage2Config, epoch: int) -> float:
    """The mean loss of an epoch. The device is waited for only where a line is logged, and at the end."""
    moving.model.train()
    torch.set_flush_denormal(True)  # dead units would otherwise leave denormals, which slow a CPU down 3 times
    total = torch.zeros((), device=moving.model.trainable()[0].device)
    done = 0
    for index, batch in enumerate(source.epoch(moving.generator)):
        loss = moving.step(batch, _rate(config, (epoch - 1) * source.batches + index, source.batches))
        if index % config.log_interval == 0:
            log_train(epoch, done, source.samples, loss.item())
        total += loss * len(batch.label)
        done += len(batch.label)
    torch.set_flush_denormal(False)  # the caller's arithmetic is none of ours
    mean = total.item() / done
    if not math.isfinite(mean):
        raise Stage2Error(f"the loss is {mean} in epoch {epoch}; try a smaller --lr, or check the features")
    return mean


def _validate(model: Stage2Model, source: Source, objective: Objective) -> Record:
    """The validation part of an epoch's record."""
    figures = evaluate(model, source, objective, "val")
    names = ("loss", "accuracy", "mpca", "classes_present", "per_class_accuracy")
    return {f"val_{name}": figures[name] for name in names}


def _keep(moving: _Moving, history: list[Record], about: About, folder: Path) -> None:
    """Saves what the epoch brought: the best model first, so that no record speaks of a model that is not there."""
    record = history[-1]
    best = best_of(history) is record
    if best:
        save(folder / BEST, about, moving.model, record)
    log_validation(record, best)
    extra = {"optimizer": moving.step.state_dict(), "history": history, "random": _random_state(moving)}
    save(folder / LAST, about, moving.model, record, **extra)
    write_history(folder / METRICS, history)


def _finished(history: list[Record], config: ResNetStage2Config) -> bool:
    if not history:
        return False
    return bool(history[-1]["epoch"] >= config.epochs or epochs_without_gain(history) >= config.patience)


def _rate(config: ResNetStage2Config, step: int, batches: int) -> float:
    """The head's learning rate of a step, counted from 0 over all epochs of `batches` steps each."""
    warmup, total = round(config.warmup_epochs * batches), config.epochs * batches
    return learning_rate(step, config.learning_rate, warmup, total)


def _random_state(moving: _Moving) -> dict[str, Tensor]:
    device = moving.model.trainable()[0].device
    state = {"order": moving.generator.get_state(), "cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _resume(resume: Checkpoint, about: About, moving: _Moving) -> list[Record]:
    _check_same_run(resume.about, about)
    restore(moving.model, resume.model, LAST)
    random: dict[str, Any] = resume.extra["random"]
    try:
        moving.step.load_state_dict(resume.extra["optimizer"])
        moving.generator.set_state(random["order"])
        torch.set_rng_state(random["cpu"])
        if "cuda" in random and torch.cuda.is_available():
            torch.cuda.set_rng_state(random["cuda"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{LAST} does not fit this run ({error}); start anew with --overwrite") from error
    return list(resume.extra["history"])


def _check_same_run(saved: About, about: About) -> None:
    for item in fields(ResNetStage2Config):
        old, new = getattr(saved.config, item.name), getattr(about.config, item.name)
        if old != new and item.name not in _FREE:
            raise CheckpointError(
                f"{LAST} was written with {item.name} {old!r}, not {new!r}; resume with the same settings"
            )
    for name in ("kind", "feature_dim", "backbone", "store_fingerprint"):
        if getattr(saved, name) != getattr(about, name):
            raise CheckpointError(f"{LAST} is of another {name}; resume on the same data and weights")
