"""The one way in which this project writes a file that matters: whole and durable, or not at all.

A temporary file on the same file system is written, fsynced and renamed over its final name, and the folder is
fsynced. A reader sees the old file or the new one, never a part; a full disk leaves nothing behind.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from configs.errors import LockedError, StorageError

Bytes = bytes | bytearray | memoryview


class _FsyncError(Exception):
    """fsync failed: the kernel may have dropped the dirty pages, so this very file must not be trusted again."""


def publish(path: Path, data: Bytes | tuple[Bytes, ...], tmp: Path | None = None) -> None:
    """Writes `data` to `path` atomically and durably; `tmp` is a folder on the same file system (default: beside it).

    Several pieces are written one after another.

    After a failed fsync a new file is written once, since a second fsync of the same file can falsely succeed.

    Raises:
        StorageError: the file system refuses; nothing is left behind, and `path` is as it was, or, where the folder's
            fsync alone failed, holds `data`.
    """
    pieces = data if isinstance(data, tuple) else (data,)
    with staged(path, lambda: pieces, tmp):
        pass


@contextmanager
def staged(path: Path, pieces: Callable[[], Iterable[Bytes]], tmp: Path | None = None) -> Iterator[Path]:
    """`publish` with a look at it first: the block gets the written file before it has its name.

    Where the block raises nothing is published. `pieces` gives the file's bytes; after a failed fsync it is asked anew.

    Raises:
        StorageError: as `publish`.
    """
    temporary = (tmp or path.parent) / f".{path.name}.tmp"
    named = False
    try:
        temporary.unlink(missing_ok=True)  # what a killed run left
        try:
            _write_durably(temporary, pieces())
        except _FsyncError:
            temporary.unlink(missing_ok=True)
            _write_durably(temporary, pieces())
        yield temporary
        os.replace(temporary, path)  # noqa: PTH105 - the system call itself is the protocol
        named = True
        fsync_folder(path.parent)
    except (OSError, _FsyncError) as error:
        raise StorageError(
            f"could not write {path} ({error}); free some space or choose another disk, then run the same "
            f"command again: what was committed before is kept"
        ) from error
    finally:
        if not named:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns the file system's refusals within the block into StorageError; `path` is what was being changed."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"could not change {path} ({error}); check the disk, then run the same again") from error


def fsync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_durably(path: Path, pieces: Iterable[Bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:  # write may take only a part
                rest = rest[os.write(descriptor, rest) :]
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise _FsyncError(f"fsync: {error}") from error
    finally:
        os.close(descriptor)


def sha256(data: Bytes) -> str:
    """The sha256 of `data` as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the exclusive lock of the file `path` (made where absent) for the length of the block.

    Raises:
        LockedError: another process holds it.
        StorageError: the file cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise StorageError(f"could not lock {path} ({error}); choose a --store that can be written") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(f"{path.parent} is being written by another job; try again when it has ended") from error
        except OSError as error:  # a file system without locks
            raise StorageError(f"could not lock {path} ({error}); choose a --store on a local disk") from error
        yield
    finally:
        os.close(descriptor)
