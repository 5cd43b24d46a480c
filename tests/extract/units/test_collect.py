"""A job on the CPU times several batch sizes on its first batches and then uses the fastest."""

import pytest
import torch

from extract.units.collect import CPU_SIZES, GPU_SIZE, TRIALS, BatchSize

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
