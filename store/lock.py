"""One writer a store. The kernel drops the lock when its holder dies, so there is never a stale one."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.errors import LockedError, StorageError


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
