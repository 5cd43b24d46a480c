"""The training loop: epochs, batches, steps, validation and checkpoints, of one run or of several at once.

Several runs are the seeds of `--seeds K`: they take each step together, every run on its own batch.
A single run is a list of one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from classify.data.batches import PairBatch, Source
from classify.evaluate.history import Record, best_record, check_history, epochs_without_improvement, write_history
from classify.evaluate.metrics import evaluate
from classify.model.checkpoint import END_TO_END, Checkpoint, RunInfo, load_state, save_checkpoint
from classify.model.head import Stage2Model
from classify.model.losses import Objective
from classify.open_run import continue_advice
from classify.replacement import replace_earlier_run
from classify.report.log import log_train, log_validation
from classify.run_folder import RunFolder
from classify.train.cpu_settings import flush_denormals
from classify.train.learning_rate import learning_rate
from configs.errors import CheckpointError, Stage2Error
from configs.process.failures import how_to_continue
from configs.ranks import rank
from configs.resnet_stage2_config import ResNetStage2Config
from configs.settings import FREE_ON_RESUME, names_with_role


class OptimizerState(Protocol):
    """What resuming restores in addition to the model's parameters."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the state. Raises KeyError, TypeError, ValueError or RuntimeError if it does not fit."""


@dataclass(eq=False)
class TrainingRun:
    """A run in training. Runs that train together differ in their seed and folder only."""

    model: Stage2Model
    optimizer: OptimizerState
    info: RunInfo
    folder: RunFolder
    log_prefix: str = ""  # "[seed 43] " if several runs share the log, which then has no lines for batches
    history: list[Record] = field(default_factory=list)  # one record an epoch
    saved_epoch: int = 0  # the epoch of last.pth

    def __post_init__(self) -> None:
        self.sample_order = torch.Generator().manual_seed(self.config.seed)

    @property
    def config(self) -> ResNetStage2Config:
        """The run's settings."""
        return self.info.config

    @property
    def next_epoch(self) -> int:
        """The number of the epoch to train next; the first epoch is 1."""
        return int(self.history[-1]["epoch"]) + 1 if self.history else 1

    @property
    def finished(self) -> bool:
        """Whether the last epoch is reached, or the validation MPCA has not risen for `patience` epochs."""
        if not self.history:
            return False
        return self.next_epoch > self.config.epochs or epochs_without_improvement(self.history) >= self.config.patience


# One training step of several runs, on one batch of each at one learning rate: (S,) losses before the step.
Step = Callable[[Sequence[PairBatch], float], Tensor]
MakeStep = Callable[[Sequence[TrainingRun]], Step]


def fit(
    runs: Sequence[TrainingRun],
    train: Source,
    val: Source,
    objective: Objective,
    make_step: MakeStep,
    *,
    warm_start: bool = False,
) -> None:
    """Trains every run until it is finished; the epochs are recorded in `run.history`.

    Each epoch writes last.pth and metrics.jsonl to the run's folder, and best_model.pth if it is the best one so far.
    Runs that have finished fewer epochs than the others, because a kill fell between two runs, catch up first.

    Args:
        make_step: returns the step of the runs that train together; called again when one of them drops out.
        warm_start: evaluate the model before its first step, as epoch 0, and keep it if training does not improve it.

    Raises:
        Stage2Error: a loss is no longer finite.
    """
    with flush_denormals(), how_to_continue(lambda: _resume_advice(runs)):
        for run in runs:
            if warm_start and not run.history:
                start = {"epoch": 0, "learning_rate": 0.0, "train_loss": None}
                run.history.append(start | _validate(run.model, val, objective))
                _save(run)
        group: list[TrainingRun] = []
        while pending := [run for run in runs if not run.finished]:
            epoch = min(run.next_epoch for run in pending)
            current = [run for run in pending if run.next_epoch == epoch]
            if current != group:
                group, step = current, make_step(current)
            losses = _train_epoch(group, step, train, epoch)
            rate = learning_rate(group[0].config, epoch * train.batches - 1, train.batches)
            for run, loss in zip(group, losses, strict=True):
                record = {"epoch": epoch, "learning_rate": rate, "train_loss": loss}
                run.history.append(record | _validate(run.model, val, objective))
                _save(run)


def _train_epoch(group: Sequence[TrainingRun], step: Step, train: Source, epoch: int) -> list[float]:
    """Trains one epoch and returns each run's mean loss. Waits for the device only to log a line and at the end."""
    config = group[0].config
    for run in group:
        run.model.train()
    total = torch.zeros(len(group), device=group[0].model.trainable_parameters()[0].device)
    done = 0
    epochs = [train.epoch(run.sample_order) for run in group]
    for index, batches in enumerate(zip(*epochs, strict=True)):
        rate = learning_rate(config, (epoch - 1) * train.batches + index, train.batches)
        losses = step(batches, rate)  # (S,)
        if index % config.log_interval == 0 and not group[0].log_prefix:
            log_train(epoch, done, train.samples, losses[0].item())
        pairs = len(batches[0].label)
        total += losses * pairs
        done += pairs
    means = [loss / done for loss in total.tolist()]
    for mean in means:
        if not math.isfinite(mean):
            raise Stage2Error(f"the loss is {mean} in epoch {epoch}; try a smaller --lr, or check the features")
    return means


def _validate(model: Stage2Model, val: Source, objective: Objective) -> Record:
    """The validation part of an epoch's record."""
    metrics = evaluate(model, val, objective, "val")
    names = ("loss", "accuracy", "mpca", "classes_present", "per_class_accuracy")
    return {f"val_{name}": metrics[name] for name in names}


def _save(run: TrainingRun) -> None:
    """Saves the last epoch. The best model comes first, so that no record is without its model after a kill."""
    record = run.history[-1]
    is_best = best_record(run.history) is record
    if is_best and rank() == 0:
        save_checkpoint(run.folder.best_model, run.info, run.model, record)
    log_validation(record, is_best, run.log_prefix)
    if rank() == 0:
        state = {"optimizer": run.optimizer.state_dict(), "history": run.history, "random": _random_state(run)}
        save_checkpoint(run.folder.last, run.info, run.model, record, **state)
        run.saved_epoch = int(record["epoch"])
        write_history(run.folder.metrics, run.history)
        replace_earlier_run(run.folder)


def _resume_advice(runs: Sequence[TrainingRun]) -> str:
    return continue_advice(runs[0].folder, min(run.saved_epoch for run in runs))


def _random_state(run: TrainingRun) -> dict[str, Tensor]:
    device = run.model.trainable_parameters()[0].device
    state = {"order": run.sample_order.get_state(), "cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def resume(run: TrainingRun, checkpoint: Checkpoint) -> None:
    """Restores a run from its last.pth; training then continues to the same numbers as without the interruption.

    Raises:
        CheckpointError: the checkpoint belongs to another run; the setting that differs is named.
    """
    _check_same_run(checkpoint.info, run.info)
    load_state(run.model, checkpoint.model, run.folder.last.name)
    check_history(run.folder.last, checkpoint.extra["history"], checkpoint.epoch)
    random: dict[str, Any] = checkpoint.extra["random"]
    try:
        run.optimizer.load_state_dict(checkpoint.extra["optimizer"])
        run.sample_order.set_state(random["order"])
        torch.set_rng_state(random["cpu"])
        if "cuda" in random and torch.cuda.is_available():
            torch.cuda.set_rng_state(random["cuda"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{run.folder.last.name} does not fit this run ({error}); give the --step that the run was started with, "
            f"or start again with --overwrite"
        ) from error
    run.history = list(checkpoint.extra["history"])
    if rank() == 0:  # a kill between writing last.pth and metrics.jsonl leaves the latter one epoch short
        write_history(run.folder.metrics, run.history)
    run.saved_epoch = run.next_epoch - 1


def _check_same_run(saved: RunInfo, info: RunInfo) -> None:
    free = names_with_role(ResNetStage2Config, FREE_ON_RESUME)
    for name in (item.name for item in fields(ResNetStage2Config) if item.name not in free):
        old, new = getattr(saved.config, name), getattr(info.config, name)
        if old != new:
            raise CheckpointError(
                f"last.pth was written with {name} {old!r}, but now {name} is {new!r}; resume with the same settings"
            )
    for name in ("kind", "feature_dim", "backbone", "store_fingerprint"):
        if getattr(saved, name) != getattr(info, name):
            raise CheckpointError(f"last.pth was written with another {name}; resume on the same data and weights")
    if info.kind == END_TO_END:
        _check_same_data(saved.data, info.data)


def _check_same_data(saved: dict[str, str], current: dict[str, str]) -> None:
    """Raises CheckpointError unless an end-to-end run was trained on this data. No digests equal nothing."""
    if not saved:
        raise CheckpointError(
            "last.pth does not say which data it was trained on (an earlier version wrote it), so it cannot be "
            "resumed; start a new run from its best model with `stage2 finetune --from`, or start again with "
            "--overwrite"
        )
    differing = [name for name in sorted({**saved, **current}) if saved.get(name) != current.get(name)]
    if differing:
        raise CheckpointError(
            f"last.pth was trained on other images or annotations of {', '.join(differing)}; give the --data_path "
            f"that the run was started with, or start again with --overwrite"
        )
