"""The quick form of the fault campaign. The full one: python -m tests.faults.campaign --full."""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.build import build_library
from tests.faults.campaign import PARTS, failures_of
from tests.faults.concurrency import read_during_writes, try_second_writer
from tests.faults.damage import damage_checkpoint, damage_stores
from tests.faults.injection import (
    fail_at_every_call,
    kill_at_every_call,
    kill_at_random,
    limit_file_size,
    make_trial,
    negative_control,
)
from tests.faults.trial import (
    ALL,
    CREATE,
    ERROR,
    KILL_BEFORE,
    KILLED,
    MKDIR,
    RENAME,
    STORAGE_ERROR,
    UNLINK,
    Fault,
    ForkServer,
    read_content,
    temporary_files,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    library = build_library(tmp_path_factory.mktemp("library"))
    if library is None:
        pytest.skip("no C compiler (cc): faults cannot be injected below Python")
    server = ForkServer(library)
    yield server
    server.close()


def test_a_kill_at_any_call_loses_no_unit(server: ForkServer, tmp_path: Path) -> None:
    result = kill_at_every_call(make_trial(server, tmp_path, 2), ALL)
    assert failures_of("kills", result) == []
    assert result["killed"] == result["runs"] > 60
    assert result["acknowledged"] > 20


def test_a_kill_at_a_random_moment_loses_no_unit(server: ForkServer, tmp_path: Path) -> None:
    result = kill_at_random(make_trial(server, tmp_path, 6), 8, 0.06)
    assert failures_of("random", result) == []


def test_an_io_error_at_any_call_is_a_storage_error(server: ForkServer, tmp_path: Path) -> None:
    result = fail_at_every_call(make_trial(server, tmp_path, 2), step=4)
    assert failures_of("errors", result) == []
    assert result["clean_errors"] > 30


@pytest.mark.parametrize("kind", [ERROR, KILL_BEFORE])
def test_faults_during_the_removal_of_damaged_files(server: ForkServer, tmp_path: Path, kind: int) -> None:
    trial = make_trial(server, tmp_path, 3)
    server.run(tmp_path / "larger.store", 4)
    stray = max((tmp_path / "larger.store" / "shards").iterdir())  # belongs to no unit of the smaller plan
    broken = []
    for calls in (CREATE, MKDIR, RENAME, UNLINK):
        for at in range(1, 7):
            shutil.rmtree(trial.path, ignore_errors=True)
            server.run(trial.path, 3)
            next((trial.path / "shards").iterdir()).write_bytes(b"damaged")
            (trial.path / ".tmp" / f".half.h5.{'0' * 16}.tmp").write_bytes(b"half")
            shutil.copy(stray, trial.path / "shards")
            outcome = server.run(trial.path, 3, Fault(calls, kind, at, errno.EIO))
            expected = (STORAGE_ERROR, "StorageError")
            if outcome.status not in (0, KILLED) and (outcome.status, outcome.error.split()[0]) != expected:
                broken.append(f"{calls} {at}: {outcome}")
            server.run(trial.path, 3)
            if read_content(trial.path) != trial.expected or temporary_files(trial.path):
                broken.append(f"{calls} {at}: differs")
    assert broken == []


def test_the_kernels_file_size_limit_is_a_storage_error(server: ForkServer, tmp_path: Path) -> None:
    result = limit_file_size(make_trial(server, tmp_path, 3), (1000, 7000, 10**6))
    assert failures_of("full_disk", result) == []
    assert result["clean_errors"] == 2


def test_the_campaign_detects_the_losses_of_in_place_appends(server: ForkServer, tmp_path: Path) -> None:
    assert failures_of("control", negative_control(server, tmp_path)) == []


def test_concurrent_readers_and_writers(tmp_path: Path) -> None:
    result = {
        "readers": read_during_writes(tmp_path / "a.store", 2, 1.5),
        "writers": try_second_writer(tmp_path / "b.store", 3),
    }
    assert failures_of("together", result) == []


def test_damage_is_detected(tmp_path: Path) -> None:
    result = damage_stores(tmp_path, 40) | damage_checkpoint(tmp_path, 40)
    assert failures_of("damage", result) == []


def test_failures_of_bad_results() -> None:
    assert len(failures_of("kills", {"broken": ["x"], "signals": 1})) == 2
    assert failures_of("control", {"broken": []})
    assert failures_of("together", {"readers": {"wrong": 1, "loads": 1}, "writers": {"refused": 0, "attempts": 1}})
    assert failures_of("damage", {"shard": {"missed": ["bit 0"]}, "seconds": 1})
    assert failures_of("command_kills", {"broken": ["x"], "train": {}})
    assert len(PARTS) == 12
