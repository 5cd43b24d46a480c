"""One fit for both modes: cached features and crops, head alone and end to end."""

import math
from collections.abc import Generator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classify.data.batches import PairBatch, Source
from classify.evaluate.history import Record, best_record, epochs_without_improvement, write_history
from classify.evaluate.metrics import evaluate
from classify.model.checkpoint import BEST, LAST, Checkpoint, RunInfo, load_state, save_checkpoint
from classify.model.head import Stage2Model
from classify.model.losses import Objective
from classify.report.log import log_train, log_validation
from classify.train.autograd_step import Moving
from configs.errors import CheckpointError, Stage2Error
from configs.ranks import rank
from configs.resnet_stage2_config import ResNetStage2Config
from configs.settings import FREE_ON_RESUME, names_with_role

Fit = Generator[tuple[PairBatch, float], Tensor, list[Record]]
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Fitted:
    """What a fit works on, and where it leaves what it finds."""

    model: Stage2Model
    moving: Moving  # what its steps move beside the parameters, and resuming brings back
    about: RunInfo
    folder: Path
    title: str = ""  # before its log lines; one of several fits at once logs no single batches


def fit(
    fitted: Fitted, train: Source, val: Source, objective: Objective, *, warm: bool, resume: Checkpoint | None
) -> Fit:
    """Trains until the last epoch, or until the validation MPCA has not risen for `patience` epochs.

    A generator, so that several fits may take their steps together: it yields each batch with the learning rate of
    its step, is sent the loss of that step, a scalar on the device, and returns the history, one record an epoch.

    Each epoch leaves last.pth and metrics.jsonl in the folder, each new best one best_model.pth. A `warm` model is
    evaluated before its first step, as epoch 0, and kept where training never beats it. With `resume`, goes on after
    that checkpoint's epoch, to the same numbers as without the interruption. Random numbers come from PyTorch's
    global generator, which the caller seeds, and from one seeded with the configuration's seed.

    Raises:
        Stage2Error: the loss is no longer finite.
        CheckpointError: `resume` is of another run.
    """
    config = fitted.about.config
    order = torch.Generator().manual_seed(config.seed)
    history: list[Record] = []
    if resume is not None:
        history = _resume(resume, fitted, order)
    elif warm:
        history = [{"epoch": 0, "learning_rate": 0.0, "train_loss": None} | _validate(fitted.model, val, objective)]
        _keep(fitted, history, order)
    while not _finished(history, config):
        epoch = history[-1]["epoch"] + 1 if history else 1
        loss = yield from _train_epoch(fitted, train, order, epoch)
        rate = _rate(config, epoch * train.batches - 1, train.batches)
        record = {"epoch": epoch, "learning_rate": rate, "train_loss": loss}
        history.append(record | _validate(fitted.model, val, objective))
        _keep(fitted, history, order)
    return history


def _train_epoch(
    fitted: Fitted, source: Source, order: torch.Generator, epoch: int
) -> Generator[tuple[PairBatch, float], Tensor, float]:
    """The mean loss of an epoch. The device is waited for only where a line is logged, and at the end."""
    config = fitted.about.config
    fitted.model.train()
    total = torch.zeros((), device=fitted.model.trainable_parameters()[0].device)
    done = 0
    for index, batch in enumerate(source.epoch(order)):
        loss = yield batch, _rate(config, (epoch - 1) * source.batches + index, source.batches)
        if index % config.log_interval == 0 and not fitted.title:
            log_train(epoch, done, source.samples, loss.item())
        total += loss * len(batch.label)
        done += len(batch.label)
    mean = total.item() / done
    if not math.isfinite(mean):
        raise Stage2Error(f"the loss is {mean} in epoch {epoch}; try a smaller --lr, or check the features")
    return mean


def _validate(model: Stage2Model, source: Source, objective: Objective) -> Record:
    """The validation part of an epoch's record."""
    figures = evaluate(model, source, objective, "val")
    names = ("loss", "accuracy", "mpca", "classes_present", "per_class_accuracy")
    return {f"val_{name}": figures[name] for name in names}


def _keep(fitted: Fitted, history: list[Record], order: torch.Generator) -> None:
    """Saves what the epoch brought: the best model first, so that no record speaks of a model that is not there."""
    record = history[-1]
    about, folder = fitted.about, fitted.folder
    best = best_record(history) is record
    if best and rank() == 0:
        save_checkpoint(folder / BEST, about, fitted.model, record)
    log_validation(record, best, fitted.title)
    extra = {
        "optimizer": fitted.moving.state_dict(),
        "history": history,
        "random": _random_state(fitted.model, order),
    }
    if rank() == 0:
        save_checkpoint(folder / LAST, about, fitted.model, record, **extra)
        write_history(folder / METRICS, history)


def _finished(history: list[Record], config: ResNetStage2Config) -> bool:
    if not history:
        return False
    return bool(history[-1]["epoch"] >= config.epochs or epochs_without_improvement(history) >= config.patience)


def _rate(config: ResNetStage2Config, step: int, batches: int) -> float:
    """The head's learning rate of a step, counted from 0 over all epochs of `batches` steps each."""
    warmup, total = round(config.warmup_epochs * batches), config.epochs * batches
    return learning_rate(step, config.learning_rate, warmup, total)


def _random_state(model: Stage2Model, order: torch.Generator) -> dict[str, Tensor]:
    device = model.trainable_parameters()[0].device
    state = {"order": order.get_state(), "cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _resume(resume: Checkpoint, fitted: Fitted, order: torch.Generator) -> list[Record]:
    _check_same_run(resume.info, fitted.about)
    load_state(fitted.model, resume.model, LAST)
    random: dict[str, Any] = resume.extra["random"]
    try:
        fitted.moving.load_state_dict(resume.extra["optimizer"])
        order.set_state(random["order"])
        torch.set_rng_state(random["cpu"])
        if "cuda" in random and torch.cuda.is_available():
            torch.cuda.set_rng_state(random["cuda"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{LAST} does not fit this run ({error}); start anew with --overwrite") from error
    return list(resume.extra["history"])


def _check_same_run(saved: RunInfo, about: RunInfo) -> None:
    for item in fields(ResNetStage2Config):
        old, new = getattr(saved.config, item.name), getattr(about.config, item.name)
        if old != new and item.name not in names_with_role(ResNetStage2Config, FREE_ON_RESUME):
            raise CheckpointError(
                f"{LAST} was written with {item.name} {old!r}, not {new!r}; resume with the same settings"
            )
    for name in ("kind", "feature_dim", "backbone", "store_fingerprint"):
        if getattr(saved, name) != getattr(about, name):
            raise CheckpointError(f"{LAST} is of another {name}; resume on the same data and weights")


def learning_rate(step: int, base: float, warmup_steps: int, total_steps: int) -> float:
    """Linear warm-up to `base` over `warmup_steps`, then half a cosine towards 0 at `total_steps`; steps count from 0.

    The first step of the warm-up is base / warmup_steps, not 0, and the last step of all is still above 0.
    """
    if step < warmup_steps:
        return base * (step + 1) / warmup_steps
    share = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return base * 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))
