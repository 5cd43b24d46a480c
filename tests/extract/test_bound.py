"""The summary names the stage that bounds a job."""

import pytest

from extract.job import bound


def seconds(**given: float) -> dict[str, float]:
    return dict.fromkeys(("plan", "read", "decode", "crop", "wait", "forward", "write"), 0.0) | {"total": 10.0} | given


@pytest.mark.parametrize(
    ("given", "on_cpu", "expected"),
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
def test_the_largest_share_bounds(given: dict[str, float], on_cpu: bool, expected: str) -> None:
    sentence = bound(seconds(**given), on_cpu)
    assert expected in sentence
    assert "faster: " in sentence


def test_nothing_forwarded_says_nothing() -> None:
    assert bound(seconds(), True) == ""
