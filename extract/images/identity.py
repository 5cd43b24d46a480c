"""Identifies image files by their content: by the sha256 of their bytes.

Reading all images takes long, so a cache beside each store remembers the sha256 of each file together with its size,
times and inode, as git's index does. An entry is used only if all of them are unchanged and the file had not been
changed shortly before it was read. Without the cache, or with a damaged one, the images are read again.
"""

import json
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from configs.errors import StorageError
from configs.read_file import MANIFEST_BYTES, read_file
from configs.schema import fits
from extract.images.read import FrameError, read_image_bytes
from store.files import publish, sha256
from store.format.paths import StorePaths
from store.format.recipe import digest

_THREADS = 4  # reading and hashing release the GIL
_RECENT = 2 * 10**9  # ns; a file that was changed this shortly before may change again without a new time
_SCHEMA = {"checksum": str, "images": {str: [(str, int)]}}

Status = tuple[int, ...]  # size, modification time, change time (which programs cannot set), inode


def image_identity(path: Path, root: Path | None = None) -> str:
    """Returns the sha256 of an image file's bytes, or the reason why they cannot be read, such as "image_missing".

    The file is not decoded, so a damaged image has a sha256 too.

    Args:
        root: a folder that links must not lead out of; see `read_image_bytes`.
    """
    try:
        return sha256(read_image_bytes(path, root))
    except FrameError as error:
        return error.reason


def image_identities(paths: Iterable[Path], root: Path | None = None) -> list[str]:
    """Returns `image_identity` of each path, in order, computed by several threads."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda path: image_identity(path, root), paths))


class ImageIdentities:
    """Identities of image files. Files that were read by this object are not read again unless they have changed."""

    def __init__(self, stores: Iterable[Path] = ()) -> None:
        """`stores`: the folders of stores whose caches are used."""
        self._read: dict[str, tuple[Status, str]] = {}  # by this object
        self._cached: dict[str, tuple[Status, str]] = {}
        for store in stores:
            self._cached |= _load_cache(StorePaths(store).image_cache)

    def distrust_cache(self) -> None:
        """From now on uses only what this object has read itself."""
        self._cached = {}

    def of_folder(self, folder: Path, names: Sequence[str], root: Path) -> list[str]:
        """Returns the identity of each file of `folder`, in the order of `names`; `root` as for `image_identity`."""
        absolute = folder.resolve()
        paths = [absolute / name for name in names]
        known = [self._lookup(path) for path in paths]
        unknown = [row for row, identity in enumerate(known) if not identity]
        if unknown:
            with ThreadPoolExecutor(_THREADS) as pool:
                found = pool.map(lambda row: self._hash(folder / names[row], paths[row], root), unknown)
                for row, identity in zip(unknown, found, strict=True):
                    known[row] = identity
        return known

    def _lookup(self, path: Path) -> str:
        """The identity of an unchanged file, "" if the file must be read."""
        key = str(path)
        entry = self._read.get(key) or self._cached.get(key)
        return entry[1] if entry is not None and entry[0] == _status(path) else ""

    def _hash(self, path: Path, absolute: Path, root: Path) -> str:
        before = _status(absolute)
        identity = image_identity(path, root)
        if before and before == _status(absolute) and len(identity) == 64:
            self._read[str(absolute)] = (before, identity)
        return identity

    def save(self, store: Path) -> None:
        """Writes the cache of the store in folder `store`, if it has changed; does nothing if that is impossible."""
        paths = StorePaths(store)
        latest = time.time_ns() - _RECENT
        entries = {**self._cached, **self._read}
        images = {path: [*status, name] for path, (status, name) in entries.items() if max(status[1:3]) < latest}
        if not paths.root.is_dir() or not self._read:
            return
        text = json.dumps({"checksum": digest(images), "images": images}).encode()
        with suppress(StorageError):
            publish(paths.image_cache, text, paths.temporary)


def _status(path: Path) -> Status:
    """What changes when a file does; () if there is no such file."""
    try:
        status = os.stat(path)  # noqa: PTH116 - faster than Path.stat, and this is called for every image
    except (OSError, ValueError):
        return ()
    return (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _load_cache(path: Path) -> dict[str, tuple[Status, str]]:
    """The entries of a cache, none if it is missing or damaged."""
    try:
        values = json.loads(read_file(path, max_bytes=MANIFEST_BYTES, follow_links=False))
    except (OSError, ValueError, RecursionError):
        return {}
    if not fits(values, _SCHEMA) or values["checksum"] != digest(values["images"]):
        return {}
    return {name: (tuple(entry[:-1]), str(entry[-1])) for name, entry in values["images"].items() if len(entry) == 5}
