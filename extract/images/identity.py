"""Identifies image files by their content: by the sha256 of their bytes.

Reading all images takes long, so a cache beside each store remembers the sha256 of each file (`FileCache`).
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from extract.images.file_cache import FileCache, file_status
from extract.images.read import FrameError, read_image_bytes
from store.files import sha256
from store.format.paths import StorePaths

_THREADS = 4  # reading and hashing release the GIL


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
        self._cache = FileCache(StorePaths(store).image_cache for store in stores)

    def distrust_cache(self) -> None:
        """From now on uses only what this object has read itself."""
        self._cache.distrust_loaded()

    def of_folder(self, folder: Path, names: Sequence[str], root: Path) -> list[str]:
        """Returns the identity of each file of `folder`, in the order of `names`; `root` as for `image_identity`."""
        absolute = folder.resolve()
        inside = absolute.is_relative_to(root.resolve())
        paths = [absolute / name for name in names]
        known = ["".join(map(str, self._cache.get(path))) for path in paths]  # "": it must be read
        unknown = [row for row, identity in enumerate(known) if not identity]

        def read_every_nth(first: int) -> None:
            for row in unknown[first::_THREADS]:
                # Only a link leads out of a folder inside `root`; resolving every path takes longer than reading it.
                checked = inside and "/" not in names[row] and not paths[row].is_symlink()
                known[row] = self._hash(folder / names[row], paths[row], None if checked else root)

        if unknown:
            with ThreadPoolExecutor(_THREADS) as pool:
                list(pool.map(read_every_nth, range(_THREADS)))
        return known

    def _hash(self, path: Path, absolute: Path, root: Path | None) -> str:
        before = file_status(absolute)
        identity = image_identity(path, root)
        if len(identity) == 64:
            self._cache.put(absolute, before, (identity,))
        return identity

    def save(self, store: Path) -> None:
        """Writes the cache of the store in folder `store`, if it has changed; does nothing if that is impossible."""
        paths = StorePaths(store)
        self._cache.save(paths.image_cache, paths.temporary)
