"""An interrupted extraction continues where it stopped, and the store is the same as without interruption."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import store.writer
from configs.errors import (
    IntegrityError,
    StorageError,
)
from extract.backbones.weights import LoadedBackbone
from store.open import read_manifest
from store.reader import load_store, store_info
from tests.jobs import EXTRACTION_SCRIPT, StoppedError, extract_store, store_files


def test_a_second_run_does_nothing(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    first = extract_store(loaded, data, tmp_path / "a.store")
    again = extract_store(loaded, data, tmp_path / "a.store")
    assert (again.statistics.frames_decoded, again.statistics.crops_forwarded) == (0, 0)
    assert again.units_reused == first.to_dict()["units"] > 2
    assert json.loads(json.dumps(again.to_dict()))["complete"] is True


@pytest.mark.parametrize("commits", [1, 2, 4])
def test_a_job_that_was_interrupted_after_some_commits_resumes(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    extract_store(loaded, data, tmp_path / "a.store")
    publish, published = store.writer.publish, 0

    def publish_until_stopped(*args: Any) -> None:
        nonlocal published
        if published == commits:
            raise StoppedError
        publish(*args)
        published += 1

    monkeypatch.setattr(store.writer, "publish", publish_until_stopped)
    try:
        extract_store(loaded, data, tmp_path / "b.store", num_workers=2)
    except StoppedError:
        assert store_info(tmp_path / "b.store")["complete"] is False
    monkeypatch.undo()
    summary = extract_store(loaded, data, tmp_path / "b.store")
    assert summary.units_reused >= min(commits, summary.to_dict()["units"])
    assert store_files(tmp_path / "a.store") == store_files(tmp_path / "b.store")


def test_a_killed_process_is_resumed(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    extract_store(loaded, data, tmp_path / "a.store")
    root = Path(__file__).parents[2]
    shards = tmp_path / "b.store" / "shards"
    command = [sys.executable, "-c", EXTRACTION_SCRIPT, str(data), str(tmp_path / "b.store")]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, env=environment) as job:
        while job.poll() is None and not (shards.is_dir() and len(list(shards.iterdir())) >= 2):
            time.sleep(0.001)
        job.send_signal(signal.SIGKILL)
    assert read_manifest(tmp_path / "b.store").state == "building"
    assert store_files(tmp_path / "b.store").keys() <= store_files(tmp_path / "a.store").keys()
    extract_store(loaded, data, tmp_path / "b.store")
    assert store_files(tmp_path / "a.store") == store_files(tmp_path / "b.store")


def test_a_full_disk_keeps_the_committed_units(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, count = os.write, 0

    def full(descriptor: int, raw: Any) -> int:
        nonlocal count
        count += 1
        if count > 4:  # the marker, STORE.json and two shards
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, raw)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="free some space"):
        extract_store(loaded, data, tmp_path / "a.store")
    monkeypatch.setattr(os, "write", write)
    assert not list((tmp_path / "a.store" / ".tmp").iterdir())
    assert extract_store(loaded, data, tmp_path / "a.store").units_reused == 2


def test_a_damaged_unit_is_recomputed(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    extract_store(loaded, data, tmp_path / "a.store")
    before = store_files(tmp_path / "a.store")
    shard = sorted((tmp_path / "a.store" / "shards").iterdir())[1]
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 2] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(IntegrityError, match=shard.name):
        load_store(tmp_path / "a.store")
    summary = extract_store(loaded, data, tmp_path / "a.store")
    assert 0 < summary.statistics.crops_forwarded < 40
    assert store_files(tmp_path / "a.store") == before
