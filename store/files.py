"""Atomic and durable file writes, and the lock of a store.

A file is written under a temporary name on the same file system, fsynced and renamed, and then its folder is fsynced.
A reader sees the old file or the new one, never a part of it, and a full disk leaves no partial file behind.
"""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from configs.errors import LockedError, StorageError

Bytes = bytes | bytearray | memoryview
TEMPORARY = ".tmp"  # ends the names of temporary files
_TEMPORARY_NAME = re.compile(rf"\.(.+)\.[0-9a-f]{{16}}{re.escape(TEMPORARY)}", re.DOTALL)


def publish(path: Path, data: Bytes, tmp: Path | None = None) -> None:
    """Writes `data` to `path` atomically and durably.

    Args:
        tmp: a folder on the same file system for the temporary file; the folder of `path` if None.

    Raises:
        StorageError: the file system fails. No temporary file is left. `path` is unchanged, or, if only the fsync of
            its folder failed, contains `data`.
    """
    with publish_after_check(path, lambda: (data,), tmp):
        pass


@contextmanager
def publish_after_check(path: Path, pieces: Callable[[], Iterable[Bytes]], tmp: Path | None = None) -> Iterator[Path]:
    """As `publish`, but runs the block with the temporary file before renaming it; no file if the block raises.

    Args:
        pieces: returns the file's bytes in pieces. It is called a second time if the first fsync fails.

    Raises:
        StorageError: as `publish`.
    """
    temporary = (tmp or path.parent) / f".{_shortened(path.name)}.{secrets.token_hex(8)}{TEMPORARY}"
    renamed = False
    try:
        mode = _replaceable_mode(path)
        if _write_and_sync(temporary, pieces()) is not None:
            # After a failed fsync the kernel may drop the written pages, and a second fsync of the same file can
            # falsely succeed. So the file is written again.
            temporary.unlink(missing_ok=True)
            failure = _write_and_sync(temporary, pieces())
            if failure is not None:
                raise OSError(f"fsync: {failure}") from failure
        if mode is not None:
            temporary.chmod(mode)
        yield temporary
        os.replace(temporary, path)  # noqa: PTH105 - tests inject errors into this system call
        renamed = True
        fsync_folder(path.parent)
    except OSError as error:
        raise StorageError(f"could not write {path} ({error}); free some space or choose another disk") from error
    finally:
        if not renamed:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _replaceable_mode(path: Path) -> int | None:
    """The permissions of the regular file `path`; None if it does not exist. Raises OSError for anything else."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path.name} is a link, a folder or a device, which is not replaced")
    return stat.S_IMODE(status.st_mode)


def _shortened(name: str) -> str:
    """The start of a file name that leaves room for the rest of a temporary name; names have at most 255 bytes."""
    return name.encode(errors="surrogateescape")[:180].decode(errors="ignore")


def remove_temporary_files(*paths: Path) -> None:
    """Removes what killed processes have left of writing `paths`. The caller must hold the locks of their folders."""
    starts = {(path.parent, _shortened(path.name)) for path in paths}
    for folder in {path.parent for path in paths}:
        for file in folder.iterdir():
            match = _TEMPORARY_NAME.fullmatch(file.name)
            if match and (folder, match[1]) in starts:
                file.unlink(missing_ok=True)


def remove_all_temporary_files(folder: Path) -> None:
    """Removes what killed processes have left in a folder for temporary files; no other files and no folders."""
    for file in folder.iterdir():
        if _TEMPORARY_NAME.fullmatch(file.name) and not file.is_dir():
            file.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Creates the folder `path`, and the folders that it is in, if they are missing. Raises StorageError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"could not create the folder {path} ({error}); choose another one") from error


def make_new_folder(path: Path) -> bool:
    """Creates the folder `path`; returns False if it exists already. Raises StorageError."""
    make_folder(path.parent)
    try:
        path.mkdir()
    except FileExistsError:
        return False
    except OSError as error:
        raise StorageError(f"could not create the folder {path} ({error}); choose another one") from error
    return True


def remove_file(path: Path) -> None:
    """Removes the file `path` if it exists. Raises StorageError."""
    with translate_os_errors(path):
        path.unlink(missing_ok=True)


def rename_entry(path: Path, target: Path) -> None:
    """Renames a file or folder within its folder, durably. Raises StorageError."""
    with translate_os_errors(path):
        path.rename(target)
        fsync_folder(target.parent)


def move_entries(source: Path, target: Path) -> None:
    """Moves what is in the folder `source` into the folder `target`, folders into those of the same name.

    If it is interrupted, a second call completes it. Raises StorageError.
    """
    make_folder(target)
    with translate_os_errors(target):
        for entry in sorted(source.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                move_entries(entry, target / entry.name)
            else:
                entry.rename(target / entry.name)
        source.rmdir()


def move_into(path: Path, folder: Path) -> None:
    """Moves a file or folder into `folder`, which is created if missing. Raises StorageError."""
    with translate_os_errors(folder):
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)


def open_to_append(path: Path) -> TextIO:
    """Opens the text file `path`, which is created if missing, to append to it. Raises OSError, also for a link.

    Opening does not wait for the reader of a FIFO, which is refused, as is anything but a regular file.
    """
    never_wait = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | never_wait, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return os.fdopen(descriptor, "a", encoding="utf-8")


@contextmanager
def translate_os_errors(path: Path) -> Iterator[None]:
    """Raises StorageError for an OSError in the block, with `path`, which the block changes, in the message."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"could not change {path} ({error}); check the disk, then run the same command again"
        ) from error


def fsync_folder(folder: Path) -> None:
    """Makes the file names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_and_sync(path: Path, pieces: Iterable[Bytes]) -> OSError | None:
    """Writes a new file and fsyncs it; returns the error of the fsync, and raises any other one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:  # os.write may write only a part
                rest = rest[os.write(descriptor, rest) :]
        try:
            os.fsync(descriptor)
        except OSError as error:
            return error
        return None
    finally:
        os.close(descriptor)


def sha256(data: Bytes) -> str:
    """The sha256 of `data` as 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Locks the file `path`, which is created if missing, while the block runs.

    Raises:
        LockedError: another process has the lock.
        StorageError: the file cannot be created.
    """
    with _translate_lock_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    with _locked(descriptor, path, path.parent):
        yield


@contextmanager
def exclusive_folder_lock(folder: Path) -> Iterator[None]:
    """As `exclusive_lock` for an existing folder, without a file in it.

    On a network file system it excludes only processes of the same machine.
    """
    with _translate_lock_errors(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with _locked(descriptor, folder, folder):
        yield


@contextmanager
def _locked(descriptor: int, path: Path, folder: Path) -> Iterator[None]:
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockedError(f"another job is writing {folder}; try again when it has ended") from error
        except OSError as error:  # a file system without locks
            raise StorageError(f"could not lock {path} ({error}); choose a folder on a local disk") from error
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _translate_lock_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"could not lock {path} ({error}); choose a folder that can be written") from error
