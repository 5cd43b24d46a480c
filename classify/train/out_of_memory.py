"""Reports an out-of-memory error in training with the remedies, and on a GPU with the largest batch that fits."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from classify.distributed import is_distributed
from configs.errors import DeviceError
from extract.device import is_out_of_memory


@dataclass
class BatchTrial:
    """How to try training on batches of a given number of pairs, set once the model exists; it ruins the model."""

    pairs: int  # in a batch of the run
    train: Callable[[int], None] | None = None


@contextmanager
def report_out_of_memory(pairs: int) -> Iterator[BatchTrial]:
    """Turns an out-of-memory error within the block into one sentence.

    Raises:
        DeviceError: memory ran out. The message names the remedies, and on a GPU without other ranks the largest batch
            size that fits. (In main memory the kernel may kill such a trial, and several ranks would wait for ever.)
    """
    trial = BatchTrial(pairs)
    try:
        yield trial
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # the frames still refer to the failed batch
        on_gpu = isinstance(error, torch.OutOfMemoryError) and not is_distributed()
        raise DeviceError(_message(trial, on_gpu)) from error


def _message(trial: BatchTrial, may_try: bool) -> str:
    if trial.train is None:
        return "out of memory; use a smaller --batch_size, or a smaller --feature_memory for cached features"
    advice = "use a smaller --batch_size"
    if may_try:
        fits = _largest_batch(trial)
        advice = f"--batch_size {fits} fits" if fits else "not even one pair fits"
    return (
        f"out of memory with batches of {trial.pairs} pairs; {advice}, or give --freeze_backbone, or finetune's "
        f"--amp, or with frozen BatchNorm its --accumulate or --checkpointing"
    )


def _largest_batch(trial: BatchTrial) -> int:
    """The largest of half the batch size, a quarter and so on that can be trained; 0 if none can."""
    size = trial.pairs // 2
    while size and not _fits(trial, size):
        size //= 2
    return size


def _fits(trial: BatchTrial, size: int) -> bool:
    assert trial.train is not None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        trial.train(size)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        return False
    return True
