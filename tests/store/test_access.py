"""Files of a store that may not be read are not damaged; FIFOs in place of files do not block."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from configs.errors import AccessError, IntegrityError, StoreError
from extract.repair import repair
from store.checks.verify import verify
from store.find import is_finished
from store.open import open_store, read_manifest
from store.pack import pack_store
from store.reader import load_store
from store.writer import open_for_writing
from tests.faults.damage import make_store
from tests.faults.workload import make_plan
from tests.stores import shard_path

Deny = Callable[[Path], AbstractContextManager[None]]


@pytest.fixture
def deny(monkeypatch: pytest.MonkeyPatch) -> Deny:
    """Within `deny(path)`, opening `path` fails with EACCES, also for root."""

    @contextmanager
    def block(denied: Path) -> Iterator[None]:
        opened = os.open

        def refuse(path: Any, *arguments: Any, **named: Any) -> int:
            if Path(path) == denied:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return opened(path, *arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            yield

    return block


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "a.store")


def test_w9_a_shard_that_may_not_be_read_is_an_error_of_its_own_and_stays_in_place(store: Path, deny: Deny) -> None:
    shard = shard_path(store, 1)
    commands: list[Callable[[], object]] = [
        lambda: load_store(store),
        lambda: verify(store),
        lambda: open_store(store).damage(),
        lambda: is_finished(store, read_manifest(store)),
        lambda: open_for_writing(store, make_plan(len(read_manifest(store).units))).__enter__(),
        lambda: repair(store, store),
    ]
    with deny(shard):
        for command in commands:
            with pytest.raises(AccessError, match=rf"{shard.name} may not be read .*Permission denied"):
                command()
    assert shard.exists()
    assert not (store / "quarantine").exists()
    assert verify(store).to_dict()["sound"]


def test_w9_a_manifest_that_may_not_be_read_is_not_rebuilt(store: Path, deny: Deny) -> None:
    before = (store / "STORE.json").read_bytes()
    with deny(store / "STORE.json"), pytest.raises(AccessError, match=r"STORE\.json may not be read"):
        repair(store, store)
    with deny(store / "skipped.jsonl"), pytest.raises(AccessError, match=r"skipped\.jsonl may not be read"):
        verify(store)
    assert (store / "STORE.json").read_bytes() == before
    assert not (store / "quarantine").exists()


def test_w9_a_packed_store_that_may_not_be_read(store: Path, tmp_path: Path, deny: Deny) -> None:
    packed = tmp_path / "a.h5"
    pack_store(store, packed)
    with deny(packed), pytest.raises(AccessError, match=r"a\.h5 may not be read"):
        load_store(packed)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", ["STORE.json", "shard", "skipped.jsonl"])
def test_h4_a_fifo_in_a_store_does_not_block(store: Path, name: str) -> None:
    path = shard_path(store, 0) if name == "shard" else store / name
    path.unlink()
    os.mkfifo(path)
    if name != "skipped.jsonl":
        with pytest.raises(IntegrityError, match="not a regular file"):
            load_store(store)
    else:
        assert [fault.kind for fault in verify(store).faults] == ["wrong_skipped"]


@pytest.mark.timeout(30)
def test_h4_a_fifo_as_a_store_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.h5")
    with pytest.raises(StoreError):
        load_store(tmp_path / "a.h5")
