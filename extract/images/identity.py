"""Identifies image files by their content."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from extract.images.read import FrameError, read_image_bytes
from store.files import sha256

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
