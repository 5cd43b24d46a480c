"""What to do when the memory is full, with the largest batch that fits."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from classify.distributed import together
from configs.errors import DeviceError
from extract.device import is_full


@dataclass
class Trial:
    """How training on a batch of so many pairs can be tried, once that is known; the model is spoilt by it."""

    pairs: int  # in a batch of the run
    train: Callable[[int], None] | None = None


@contextmanager
def memory_checked(pairs: int) -> Iterator[Trial]:
    """Turns an error of full memory into one sentence.

    Raises:
        DeviceError: the memory was full; it names the remedies, and on a GPU of its own the largest batch size that
            fits. (A trial that fills the main memory may be killed by the kernel, and one of a single rank waits for
            the others for ever.)
    """
    trial = Trial(pairs)
    try:
        yield trial
    except RuntimeError as error:
        if not is_full(error):
            raise
        traceback.clear_frames(error.__traceback__)  # the failed batch would still fill the memory
        raise DeviceError(_sentence(trial, isinstance(error, torch.OutOfMemoryError) and not together())) from error


def _sentence(trial: Trial, may_try: bool) -> str:
    if trial.train is None:
        return "the memory is full; use a smaller --batch_size, or a smaller --feature_memory for cached features"
    advice = "use a smaller --batch_size"
    if may_try:
        fits = _largest(trial)
        advice = f"--batch_size {fits} fits" if fits else "not even one pair fits"
    return (
        f"the memory is full with batches of {trial.pairs} pairs; {advice}, or give --freeze_backbone, or finetune's "
        f"--amp, or with frozen BatchNorm its --accumulate or --checkpointing"
    )


def _largest(trial: Trial) -> int:
    """The largest of half the batch size, a quarter and so on that can be trained; 0 where none can."""
    size = trial.pairs // 2
    while size and not _fits(trial, size):
        size //= 2
    return size


def _fits(trial: Trial, size: int) -> bool:
    assert trial.train is not None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        trial.train(size)
    except RuntimeError as error:
        if not is_full(error):
            raise
        traceback.clear_frames(error.__traceback__)
        return False
    return True
