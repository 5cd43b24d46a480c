"""Images are identified by their bytes; the cache saves reading them and is used only if it cannot be wrong."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import extract.images.file_cache
import extract.images.identity
from extract.images.identity import ImageIdentities
from store.files import sha256
from store.format.recipe import digest

NAMES = ["a.jpg", "b.jpg", "c.jpg"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files that count as not recent, next to the folder of a store."""
    monkeypatch.setattr(extract.images.file_cache, "_RECENT", 0)
    (tmp_path / "a.store" / ".tmp").mkdir(parents=True)
    folder = tmp_path / "images"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(name.encode() * 10)
    return folder


def expected(folder: Path) -> list[str]:
    return [sha256((folder / name).read_bytes()) for name in NAMES]


@contextmanager
def counted_reads() -> Iterator[list[str]]:
    read, names = extract.images.identity.image_identity, []  # type: ignore[var-annotated]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            extract.images.identity, "image_identity", lambda path, root: names.append(path.name) or read(path, root)
        )
        yield names


def identify(folder: Path, save: bool = False) -> tuple[list[str], list[str]]:
    """The identities by a new object with the store's cache, and the names of the files that were read."""
    store = folder.parent / "a.store"
    with counted_reads() as names:
        identities = ImageIdentities([store])
        result = identities.of_folder(folder, NAMES, folder)
        assert identities.of_folder(folder, NAMES, folder) == result
    if save:
        identities.save(store)
    return result, sorted(set(names))


def test_r7_the_cache_saves_reading(folder: Path) -> None:
    assert identify(folder, save=True) == (expected(folder), NAMES)
    assert identify(folder) == (expected(folder), [])


def test_r7_a_changed_file_is_read(folder: Path) -> None:
    identify(folder, save=True)
    path = folder / "b.jpg"
    times = path.stat()
    path.write_bytes(b"x" * times.st_size)  # the same size and, below, the same modification time and inode
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_ino == times.st_ino
    assert identify(folder) == (expected(folder), ["b.jpg"])


def test_r7_a_replaced_file_is_read(folder: Path) -> None:
    identify(folder, save=True)
    other = folder.parent / "other"
    other.write_bytes(b"y" * 50)
    other.rename(folder / "c.jpg")
    assert identify(folder) == (expected(folder), ["c.jpg"])


def test_a_file_that_was_changed_recently_is_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract.images.file_cache, "_RECENT", 10**12)
    identify(folder, save=True)
    assert identify(folder)[1] == NAMES


@pytest.mark.parametrize(
    "text", [None, b"", b"{", b"[" * 100_000, b"[]", b'{"images": {}}', b'{"checksum": "", "images": {"a": [1, 2]}}']
)
def test_r7_a_missing_or_damaged_cache_costs_only_time(folder: Path, text: bytes | None) -> None:
    identify(folder, save=True)
    cache = folder.parent / "a.store" / ".images.json"
    if text is None:
        cache.unlink()
    else:
        cache.write_bytes(text)
    assert identify(folder) == (expected(folder), NAMES)


def test_r7_a_wrong_digest_in_the_cache_is_noticed(folder: Path) -> None:
    identify(folder, save=True)
    cache = folder.parent / "a.store" / ".images.json"
    cache.write_bytes(cache.read_bytes().replace(expected(folder)[0].encode(), b"0" * 64))
    assert identify(folder) == (expected(folder), NAMES)
    values = json.loads(cache.read_bytes())
    assert values["checksum"] != digest(values["images"])


def test_files_that_cannot_be_read_are_identified_by_the_reason(folder: Path) -> None:
    (folder / "a.jpg").unlink()
    (folder / "b.jpg").unlink()
    (folder / "b.jpg").symlink_to("/etc/hostname")
    os.mkfifo(folder / "d.jpg")
    identities = ImageIdentities()
    names = ["a.jpg", "b.jpg", "d.jpg"]
    assert identities.of_folder(folder, names, folder) == ["image_missing", "image_outside", "image_not_a_file"]


def test_a_cache_that_cannot_be_written_is_left_out(folder: Path) -> None:
    identities = ImageIdentities()
    identities.of_folder(folder, NAMES, folder)
    identities.save(folder.parent / "nothing")
    (folder.parent / "a.store" / ".tmp").rmdir()
    identities.save(folder.parent / "a.store")
    assert not (folder.parent / "a.store" / ".images.json").exists()
