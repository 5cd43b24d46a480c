"""A job on the CPU times several batch sizes on its first batches and then uses the fastest."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from extract.units.collect import CPU_SIZES, GPU_SIZE, TRIALS, BatchSize, FeatureCollector

CPU = torch.device("cpu")


def after_trials(seconds_per_crop: dict[int, float]) -> BatchSize:
    """Returns the batch size after all trials, with these times per crop."""
    size = BatchSize(0, CPU)
    for _ in range(TRIALS * len(CPU_SIZES)):
        assert size.chosen == 0
        crops = size.next()
        size.record(crops, crops * seconds_per_crop[crops])
    return size


@pytest.mark.parametrize("fastest", CPU_SIZES)
def test_the_fastest_size_is_chosen(fastest: int) -> None:
    size = after_trials({crops: 1.0 if crops == fastest else 2.0 for crops in CPU_SIZES})
    assert size.chosen == fastest
    assert {size.next() for _ in range(9)} == {fastest}


def test_the_first_size_is_chosen_unless_another_is_clearly_faster() -> None:
    first, *others = CPU_SIZES
    assert after_trials({first: 1.0} | dict.fromkeys(others, 0.97)).chosen == first
    assert after_trials({first: 1.0} | dict.fromkeys(others, 0.9)).chosen == others[0]


def test_one_slow_batch_does_not_matter() -> None:
    size = BatchSize(0, CPU)
    for turn in range(TRIALS * len(CPU_SIZES)):
        crops = size.next()
        size.record(crops, crops * (50.0 if turn == 0 else 1.0 if crops == CPU_SIZES[0] else 2.0))
    assert size.chosen == CPU_SIZES[0]


def test_batches_that_are_not_full_are_ignored() -> None:
    size = BatchSize(0, CPU)
    for _ in range(100):
        size.record(3, 1.0)
    assert size.chosen == 0


def test_a_given_size_and_that_of_a_gpu_are_fixed() -> None:
    for size, expected in ((BatchSize(5, CPU), 5), (BatchSize(0, torch.device("cuda")), GPU_SIZE)):
        assert size.chosen == expected
        size.record(expected, 1.0)
        assert {size.next() for _ in range(4)} == {expected}


class Queue:
    """An executor that runs a task only when its result is asked for, and counts the waiting tasks."""

    def __init__(self) -> None:
        self.waiting = self.most = 0

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self.waiting += 1
        self.most = max(self.most, self.waiting)

        def result() -> Any:
            self.waiting -= 1
            return function(*arguments)

        return SimpleNamespace(result=result)


@pytest.mark.parametrize("parallel", [1, 3])
def test_a_fixed_number_of_batches_waits_at_most(parallel: int) -> None:
    queue = Queue()
    workers: Any = SimpleNamespace(forwarders=queue, parallel_batches=parallel, device=CPU)
    forward: Any = lambda batch: batch.float().flatten(1).mean(1, keepdim=True)  # noqa: E731
    collector = FeatureCollector(forward, BatchSize(2, CPU), 4, "float32", workers)
    crops = torch.arange(60, dtype=torch.uint8)[:, None, None, None].expand(60, 3, 4, 4)
    for start in range(0, 60, 5):
        collector.add(crops[start : start + 5])
        assert queue.waiting <= 2 * parallel
    assert queue.most == 2 * parallel + 1  # the last of these is submitted before the oldest is awaited
    assert collector.forwarded == 60
    assert collector.ready == 60 - 2 * 2 * parallel
    collector.flush()
    assert queue.waiting == 0
    assert collector.take(60, 1)[:, 0].tolist() == list(range(60))
