"""Remembers what was found out about files, for as long as they are unchanged, as git's index does.

An entry is used only if the file's size, times and inode are unchanged, and it is saved only if the file had not been
changed shortly before. Without the cache, or with a damaged one, the files are read again: it costs time, never truth.
"""

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from configs.errors import StorageError
from configs.read_file import MANIFEST_BYTES, read_file
from configs.schema import fits
from store.files import publish
from store.format.recipe import digest

_RECENT = 2 * 10**9  # ns; a file that was changed this shortly before may change again without a new time
_SCHEMA = {"checksum": str, "images": {str: [(str, int)]}}
_STATUS_FIELDS = 4

Status = tuple[int, ...]  # size, modification time, change time (which programs cannot set), inode
Value = tuple[str | int, ...]


def file_status(path: Path) -> Status:
    """What changes when a file does; () if there is no such file."""
    try:
        status = os.stat(path)  # noqa: PTH116 - faster than Path.stat, and this is called for every image
    except (OSError, ValueError):
        return ()
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


class FileCache:
    """Absolute path -> value of a file. Several threads may use it at once."""

    def __init__(self, files: Iterable[Path] = (), length: int = 1) -> None:
        """Loads earlier caches.

        Args:
            files: where they were saved; missing and damaged ones are ignored.
            length: the number of values of an entry; entries of another length are ignored.
        """
        self._read: dict[str, tuple[Status, Value]] = {}  # put into this object
        self._loaded: dict[str, tuple[Status, Value]] = {}
        for file in files:
            self._loaded |= _load(file, length)

    def distrust_loaded(self) -> None:
        """From now on returns only what was put into this object."""
        self._loaded = {}

    def get(self, path: Path) -> Value:
        """The value of the file, () if it is unknown or the file has changed; `path` is absolute."""
        key = str(path)
        entry = self._read.get(key) or self._loaded.get(key)
        return entry[1] if entry is not None and entry[0] == file_status(path) else ()

    def put(self, path: Path, before: Status, value: Value) -> None:
        """Remembers the value of a file, unless it has changed since its status was `before`."""
        if before and before == file_status(path):
            self._read[str(path)] = (before, value)

    def save(self, path: Path, temporary: Path | None = None) -> None:
        """Writes all entries to `path` if there are new ones; does nothing if that is impossible.

        Args:
            temporary: see `store.files.publish`.
        """
        if not path.parent.is_dir() or not self._read:
            return
        latest = time.time_ns() - _RECENT
        entries = {**self._loaded, **self._read}
        images = {name: [*status, *value] for name, (status, value) in entries.items() if max(status[1:3]) < latest}
        text = json.dumps({"checksum": digest(images), "images": images}).encode()
        with suppress(StorageError):
            publish(path, text, temporary)


def _load(path: Path, length: int) -> dict[str, tuple[Status, Value]]:
    """The entries of a cache, none if it is missing or damaged."""
    try:
        values = json.loads(read_file(path, max_bytes=MANIFEST_BYTES, follow_links=False))
    except (OSError, ValueError, RecursionError):
        return {}
    if not fits(values, _SCHEMA) or values["checksum"] != digest(values["images"]):
        return {}
    return {
        name: (tuple(entry[:_STATUS_FIELDS]), tuple(entry[_STATUS_FIELDS:]))
        for name, entry in values["images"].items()
        if len(entry) == _STATUS_FIELDS + length
    }
