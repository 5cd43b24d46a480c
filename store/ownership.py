"""Which folders stage2 may change: those with a marker file that it wrote. The marker is also the folder's lock.

A folder is never recognised by the names of the files in it, which may be somebody else's. The marker is written before
anything else, so a job that is killed at any moment leaves an empty folder, one with an empty marker, or a marked one.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.errors import StorageError
from configs.read_file import read_file
from store.files import exclusive_lock, make_folder

STORE, RUN, COMPARISON = "store", "run", "comparison"  # kinds of folders
MARKER_PREFIX = ".stage2-"  # begins the names of markers, except that of stores, and of folders for unfinished work
RUN_MARKER, COMPARISON_MARKER = f"{MARKER_PREFIX}{RUN}", f"{MARKER_PREFIX}{COMPARISON}"
_MOST_BYTES = 1000  # of a marker


def is_marked(marker: Path, kind: str) -> bool:
    """Whether the file `marker` says that its folder is a `kind`."""
    return _content(marker) == _text(kind)


def is_unused(marker: Path, kind: str) -> bool:
    """Whether the folder of `marker` is missing or empty, or has only the unfinished marker of a killed job."""
    folder = marker.parent
    if not folder.is_dir():
        return not os.path.lexists(folder)
    names = {entry.name for entry in folder.iterdir()}
    return not names or (names == {marker.name} and _is_unfinished(marker, kind))


@contextmanager
def own_folder(marker: Path, kind: str) -> Iterator[None]:
    """Creates the folder of `marker` if it is missing, and locks and marks it; the lock lasts while the block runs.

    The caller has checked that the folder is marked or unused, or knows from its content that it is a `kind`.

    Raises:
        LockedError: another process has the lock.
        StorageError: the folder or the marker cannot be created.
    """
    make_folder(marker.parent)
    with exclusive_lock(marker):
        if _is_unfinished(marker, kind):
            _write(marker, _text(kind))
        yield


def _text(kind: str) -> bytes:
    return f"stage2 {kind}, format 1\n".encode()


def _is_unfinished(marker: Path, kind: str) -> bool:
    content = _content(marker)
    return content is not None and content != _text(kind) and _text(kind).startswith(content)


def _content(marker: Path) -> bytes | None:
    """The bytes of the file; None if it is missing, too large to be a marker, or not a regular file."""
    try:
        return read_file(marker, max_bytes=_MOST_BYTES, follow_links=False)
    except OSError:
        return None


def _write(marker: Path, text: bytes) -> None:
    """Writes into the existing file, because replacing it would leave the lock with the old one."""
    try:
        descriptor = os.open(marker, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            while text:  # a disk that is nearly full takes a part
                text = text[os.write(descriptor, text) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(f"could not write {marker} ({error}); free some space or choose another disk") from error
