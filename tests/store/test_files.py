"""A published file has the old or the new content, whichever call of the file system fails."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import IntegrityError, StorageError
from store.files import open_to_append, publish, publish_after_check, remove_temporary_files, sha256

OLD, NEW = b"old content", bytes(range(256)) * 50


def old_file(folder: Path) -> Path:
    """A file with the content OLD."""
    path = folder / "file.bin"
    path.write_bytes(OLD)
    return path


@given(data=st.binary(max_size=3000))
def test_published_bytes_can_be_read(tmp_path: Path, data: bytes) -> None:
    path = old_file(tmp_path)
    publish(path, data)
    assert path.read_bytes() == data
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]


def test_w7_a_users_file_with_the_name_of_a_temporary_file_is_kept(tmp_path: Path) -> None:
    path = old_file(tmp_path)
    (tmp_path / ".file.bin.tmp").write_bytes(b"mine")
    publish(path, NEW)
    assert path.read_bytes() == NEW
    assert (tmp_path / ".file.bin.tmp").read_bytes() == b"mine"


def test_w7_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = old_file(tmp_path)
    path.chmod(0o600)
    publish(path, NEW)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (NEW, 0o600)


def test_w7_a_link_is_not_replaced(tmp_path: Path) -> None:
    path = old_file(tmp_path)
    (tmp_path / "link.bin").symlink_to(path)
    with pytest.raises(StorageError, match="is a link"):
        publish(tmp_path / "link.bin", NEW)
    assert (tmp_path / "link.bin").is_symlink()
    assert path.read_bytes() != NEW


def test_temporary_files_of_killed_processes_are_removed_and_no_others(tmp_path: Path) -> None:
    path = old_file(tmp_path)
    (tmp_path / f".file.bin.{'0a' * 8}.tmp").write_bytes(b"half")
    for name in (".file.bin.tmp", ".file.bin.mine.tmp", f".other.bin.{'0a' * 8}.tmp"):
        (tmp_path / name).touch()
    remove_temporary_files(path)
    names = {".file.bin.tmp", ".file.bin.mine.tmp", f".other.bin.{'0a' * 8}.tmp", "file.bin"}
    assert {entry.name for entry in tmp_path.iterdir()} == names


@pytest.mark.parametrize("limit", [1, 7, 4096])
def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:limit]))
    path = old_file(tmp_path)
    publish(path, NEW)
    assert path.read_bytes() == NEW


def failing(call: Callable[..., Any], after: int, code: int, times: int = 10**9) -> Callable[..., Any]:
    """A wrapper of `call` that fails `times` times with error `code`, after `after` successful calls."""
    count = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if after < count <= after + times:
            raise OSError(code, os.strerror(code))
        return call(*args, **kwargs)

    return wrapped


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("name", ["write", "open", "replace"])
def test_a_failing_call_leaves_the_old_content_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    path = old_file(tmp_path)
    monkeypatch.setattr(os, name, failing(getattr(os, name), 0, code))
    with pytest.raises(StorageError, match=r"file\.bin.*free some space"):
        publish(path, NEW)
    monkeypatch.undo()
    assert path.read_bytes() == OLD
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]


@pytest.mark.parametrize("writes", range(4))
def test_a_disk_that_fills_up_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    path = old_file(tmp_path)
    write = os.write
    part = failing(lambda descriptor, data: write(descriptor, data[:3000]), writes, errno.ENOSPC)
    monkeypatch.setattr(os, "write", part)
    with pytest.raises(StorageError):
        publish(path, NEW)
    assert path.read_bytes() == OLD
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]


def test_a_failed_fsync_is_retried_with_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old_file(tmp_path)
    synced: list[int] = []
    fail = failing(os.fsync, 0, errno.EIO, times=1)

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fail(descriptor)

    # a hard link keeps the inode of the failed file, so that the second file gets a different number
    unlink = Path.unlink
    links = tmp_path / "links"
    links.mkdir()

    def unlink_after_link(self: Path, missing_ok: bool = False) -> None:
        if self.exists():
            os.link(self, links / str(len(synced)))
        unlink(self, missing_ok)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "unlink", unlink_after_link)
    publish(path, NEW)
    assert path.read_bytes() == NEW
    assert synced[0] != synced[1] == path.stat().st_ino


def test_repeated_fsync_failures_keep_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = old_file(tmp_path)
    monkeypatch.setattr(os, "fsync", failing(os.fsync, 0, errno.EIO))
    with pytest.raises(StorageError, match="fsync"):
        publish(path, NEW)
    assert path.read_bytes() == OLD
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]


def test_the_calls_are_in_the_durable_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """write, fsync of the file, rename, fsync of the folder."""
    path = old_file(tmp_path)
    calls: list[str] = []
    for name in ("write", "fsync", "replace"):
        call = getattr(os, name)

        def recorded(*args: Any, name: str = name, call: Callable[..., Any] = call) -> Any:
            folder = name == "fsync" and os.path.isdir(f"/proc/self/fd/{args[0]}")  # noqa: PTH112
            calls.append("fsync folder" if folder else name)
            return call(*args)

        monkeypatch.setattr(os, name, recorded)
    publish(path, NEW)
    assert calls == ["write", "fsync", "replace", "fsync folder"]


def test_a_missing_folder_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        publish(tmp_path / "none" / "file", NEW)


def test_sha256_of_the_empty_string() -> None:
    assert sha256(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("error", [IntegrityError("rejected"), KeyboardInterrupt()])
def test_a_file_that_the_check_rejects_is_not_published(tmp_path: Path, error: BaseException) -> None:
    path = old_file(tmp_path)
    with pytest.raises(type(error)), publish_after_check(path, lambda: [NEW[:100], NEW[100:]]) as written:
        assert written.read_bytes() == NEW
        assert path.read_bytes() == OLD
        raise error
    assert path.read_bytes() == OLD
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]


def test_pieces_are_generated_again_after_a_failed_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, calls = old_file(tmp_path), []

    def failing_once(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(os, "fsync", failing_once)
    with publish_after_check(path, lambda: iter([NEW[:100], NEW[100:]])):
        pass
    assert path.read_bytes() == NEW


def test_a_log_is_appended_to_a_regular_file_only(tmp_path: Path) -> None:
    for line in ("one\n", "two\n"):
        with open_to_append(tmp_path / "log") as file:
            file.write(line)
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
    (tmp_path / "link").symlink_to(tmp_path / "log")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo"):
        with pytest.raises(OSError):
            open_to_append(tmp_path / name)
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
