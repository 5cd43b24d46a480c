"""Takes the steps that fits ask for: of one whole model, or of several heads together."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from classify.data.batches import PairBatch
from classify.evaluate.history import Record
from classify.model.losses import Objective
from classify.train.autograd_step import AutogradStep
from classify.train.fit import Fit
from classify.train.head_step import HeadStep, MovingHead

_LESSON = (32 << 20) - 8192  # bytes, just below the largest block that glibc learns from


def drive(fit: Fit, step: AutogradStep) -> list[Record]:
    """Runs a fit to its end and returns its history."""
    with _flushed_denormals():
        try:
            wanted = next(fit)
            while True:
                wanted = fit.send(step(*wanted))
        except StopIteration as end:
            history: list[Record] = end.value
            return history


def drive_together(fits: Sequence[Fit], moving: Sequence[MovingHead], objective: Objective) -> list[list[Record]]:
    """Runs the fits of several heads on the same samples to their ends, a step of all at a time.

    One that is finished drops out. Where some are behind, as after a kill between two of them, they catch up first.
    """
    histories: dict[int, list[Record]] = {}
    wanted: dict[int, tuple[PairBatch, float]] = {}

    def advance(number: int, loss: torch.Tensor | None) -> None:
        try:
            wanted[number] = next(fits[number]) if loss is None else fits[number].send(loss)
        except StopIteration as end:
            wanted.pop(number, None)
            histories[number] = end.value

    def hindmost() -> list[int]:
        fewest = min((moving[number].steps for number in wanted), default=0)
        return [number for number in wanted if moving[number].steps == fewest]

    _keep_freed_memory()
    with _flushed_denormals():
        for number in range(len(fits)):
            advance(number, None)
        while group := hindmost():
            step = HeadStep([moving[number] for number in group], objective)
            while hindmost() == group:
                losses = step([wanted[number][0] for number in group], wanted[group[0]][1])
                for number, loss in zip(group, losses, strict=True):
                    advance(number, loss)
    return [histories[number] for number in range(len(fits))]


@contextmanager
def _flushed_denormals() -> Iterator[None]:
    """Dead units would leave denormals in the parameters, which slow a CPU down 3 times."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)  # the caller's arithmetic is none of ours


def _keep_freed_memory() -> None:
    """Lets glibc keep up to 64 MB that a step has freed, for the next one.

    It gives back what exceeds twice the largest block that was ever freed (malloc.c, "dynamic mmap threshold"), and
    fetching it anew takes a tenth of a step on a large batch. The block that teaches it is never written to.
    """
    torch.empty(_LESSON, dtype=torch.uint8)


SMALL_BATCH = 128  # pairs; up to here one thread trains a head faster than two


@contextmanager
def threads_for(pairs: int) -> Iterator[None]:
    """One thread for heads on few pairs a step: their operators are too short to share, and waiting for a busy core
    costs more than the other one brings."""
    threads = torch.get_num_threads()
    if pairs <= SMALL_BATCH:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
