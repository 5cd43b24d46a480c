"""The quick form of the fault campaign; the full one: python -m tests.faults.campaign --full."""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.build import build_library
from tests.faults.campaign import PARTS, faults_of
from tests.faults.damage import damaged_checkpoint, damaged_stores
from tests.faults.harness import (
    ALL,
    CREATE,
    ERROR,
    KILL_BEFORE,
    MKDIR,
    RENAME,
    UNLINK,
    Fault,
    Zygote,
    content,
    leftovers,
)
from tests.faults.kills import (
    errors_at_every_call,
    full_disks,
    kills_at_every_call,
    make_trial,
    negative_control,
    random_kills,
)
from tests.faults.together import readers_while_a_writer_works, two_writers


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    library = build_library(tmp_path_factory.mktemp("library"))
    if library is None:
        pytest.skip("no C compiler (cc): faults cannot be injected below Python")
    zygote = Zygote(library)
    yield zygote
    zygote.close()


def test_kill_at_every_call_loses_nothing(zygote: Zygote, tmp_path: Path) -> None:
    found = kills_at_every_call(make_trial(zygote, tmp_path, 2), ALL)
    assert faults_of("kills", found) == []
    assert found["killed"] == found["runs"] > 60
    assert found["acknowledged"] > 20


def test_kills_at_random_moments_lose_nothing(zygote: Zygote, tmp_path: Path) -> None:
    found = random_kills(make_trial(zygote, tmp_path, 6), 8, 0.06)
    assert faults_of("random", found) == []


def test_errors_are_clean_wherever_they_come(zygote: Zygote, tmp_path: Path) -> None:
    found = errors_at_every_call(make_trial(zygote, tmp_path, 2), step=4)
    assert faults_of("errors", found) == []
    assert found["clean_errors"] > 30


@pytest.mark.parametrize("kind", [ERROR, KILL_BEFORE])
def test_faults_while_damage_is_cleared_away(zygote: Zygote, tmp_path: Path, kind: int) -> None:
    trial = make_trial(zygote, tmp_path, 3)
    zygote.run(tmp_path / "larger.store", 4)
    stray = max((tmp_path / "larger.store" / "shards").iterdir())  # of no unit of the smaller plan
    broken = []
    for calls in (CREATE, MKDIR, RENAME, UNLINK):
        for at in range(1, 7):
            shutil.rmtree(trial.path, ignore_errors=True)
            zygote.run(trial.path, 3)
            next((trial.path / "shards").iterdir()).write_bytes(b"damaged")
            (trial.path / ".tmp" / ".half.h5.tmp").write_bytes(b"half")
            shutil.copy(stray, trial.path / "shards")
            outcome = zygote.run(trial.path, 3, Fault(calls, kind, at, errno.EIO))
            if outcome.status not in (0, -9) and (outcome.status, outcome.error.split()[0]) != (74, "StorageError"):
                broken.append(f"{calls} {at}: {outcome}")
            zygote.run(trial.path, 3)
            if content(trial.path) != trial.whole or leftovers(trial.path):
                broken.append(f"{calls} {at}: differs")
    assert broken == []


def test_a_real_limit_of_the_kernel_is_a_clean_error(zygote: Zygote, tmp_path: Path) -> None:
    found = full_disks(make_trial(zygote, tmp_path, 3), (1000, 7000, 10**6))
    assert faults_of("full_disk", found) == []
    assert found["clean_errors"] == 2


def test_the_harness_finds_what_in_place_appends_lose(zygote: Zygote, tmp_path: Path) -> None:
    assert faults_of("control", negative_control(zygote, tmp_path)) == []


def test_readers_and_writers_together(tmp_path: Path) -> None:
    found = {
        "readers": readers_while_a_writer_works(tmp_path / "a.store", 2, 1.5),
        "writers": two_writers(tmp_path / "b.store", 3),
    }
    assert faults_of("together", found) == []


def test_damage_is_found(tmp_path: Path) -> None:
    found = damaged_stores(tmp_path, 40) | damaged_checkpoint(tmp_path, 40)
    assert faults_of("damage", found) == []


def test_the_judge_condemns(zygote: Zygote) -> None:
    bad = {"broken": ["x"], "signals": 1}
    assert len(faults_of("kills", bad)) == 2
    assert faults_of("control", {"broken": []})
    assert faults_of("together", {"readers": {"wrong": 1, "loads": 1}, "writers": {"refused": 0, "attempts": 1}})
    assert faults_of("damage", {"shard": {"missed": ["bit 0"]}, "seconds": 1})
    assert len(PARTS) == 7
