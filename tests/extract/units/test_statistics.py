"""The statistics name the stage that limits a job's speed."""

import time
from pathlib import Path

import pytest

from extract.backbones.weights import LoadedBackbone
from extract.units.statistics import STAGES, JobStatistics
from tests.jobs import extract_store


def statistics(**seconds: float) -> JobStatistics:
    return JobStatistics(seconds=dict.fromkeys(STAGES, 0.0) | {"total": 10.0} | seconds)


@pytest.mark.parametrize(
    ("seconds", "on_cpu", "expected"),
    [
        ({"forward": 16.0, "decode": 3.0, "crop": 1.0}, True, "forward takes 80% of the threads' work"),
        ({"forward": 3.0, "decode": 12.0, "crop": 5.0}, True, "decode takes 60%"),
        ({"forward": 3.0, "crop": 12.0}, True, "crop takes 80%"),
        ({"forward": 9.0, "decode": 40.0, "wait": 0.5}, False, "the device is busy, and waits for crops 5%"),
        ({"forward": 2.0, "decode": 40.0, "crop": 10.0, "wait": 8.0}, False, "decode takes 80%"),
        ({"forward": 2.0, "read": 40.0, "wait": 8.0}, False, "faster disk"),
        ({"forward": 2.0, "write": 7.0}, True, "writing takes 70% of the time"),
    ],
)
def test_the_stage_with_the_largest_share_is_the_bottleneck(
    seconds: dict[str, float], on_cpu: bool, expected: str
) -> None:
    sentence = statistics(**seconds).bottleneck(on_cpu)
    assert expected in sentence
    assert "faster: " in sentence


def test_a_job_that_forwarded_nothing_has_no_bottleneck() -> None:
    assert statistics().bottleneck(True) == ""


def test_a_job_that_does_nothing_has_counted_nothing() -> None:
    nothing = JobStatistics()
    assert (nothing.frames_decoded, nothing.panoramas, nothing.crops_forwarded, nothing.batch_size) == (0, 0, 0, 0)
    assert set(nothing.seconds) == set(STAGES) and not any(nothing.seconds.values())


def test_the_stages_of_a_job_without_threads_take_no_longer_than_the_job(
    tmp_path: Path, data: Path, loaded: LoadedBackbone
) -> None:
    start = time.perf_counter()
    seconds = extract_store(loaded, data, tmp_path / "a.store", num_workers=0).statistics.seconds
    elapsed = time.perf_counter() - start
    stages = [seconds[stage] for stage in ("plan", "read", "decode", "crop", "write")]
    assert min(stages) > 0 and sum(stages) < seconds["total"] < elapsed
