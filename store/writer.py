"""Writes a store unit by unit, so that the job can be killed at any moment and resumed.

A unit is done if there is a shard that has the unit's digest and matches the sha256 in its file name. Nothing else is
trusted on resuming, and a published file is never opened for writing.
"""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from configs.errors import IntegrityError, MismatchError, OtherDataError, StoreError
from store.files import (
    fsync_folder,
    make_folder,
    move_into,
    publish,
    remove_all_temporary_files,
    sha256,
    translate_os_errors,
)
from store.format.manifest import Manifest, Unit, write_manifest
from store.format.paths import StorePaths, shard_name
from store.format.recipe import check_recipe
from store.format.shard import Shard, Skipped, skipped_lines
from store.format.shard_file import read_shard, shard_file
from store.format.units import describe_stored, shard_attributes
from store.open import check_format, read_manifest
from store.ownership import STORE, is_marked, is_unused, own_folder

_log = logging.getLogger("stage2")


class StoreWriter:
    """An open, locked store. `done` maps the numbers of finished units to their entries in STORE.json."""

    def __init__(self, path: Path, plan: Manifest) -> None:
        self.paths = StorePaths(path)
        self.plan = plan
        self.done: dict[int, Unit] = {}
        self._skipped: dict[int, tuple[Skipped, ...]] = {}

    @property
    def pending(self) -> list[int]:
        """The numbers of the units that have to be computed."""
        return [number for number in range(len(self.plan.units)) if number not in self.done]

    def skipped_items(self) -> Iterator[Skipped]:
        """The skipped items of the finished units, in the order of the units."""
        return (item for number in sorted(self.done) for item in self._skipped[number])

    def forget(self, numbers: Collection[int]) -> None:
        """Makes finished units pending again; `finish` removes their shards."""
        for number in numbers:
            self.done.pop(number, None)

    def commit(self, number: int, shard: Shard) -> None:
        """Writes unit `number`. When this returns, the unit survives a kill or a power cut. Raises StorageError."""
        unit = self.plan.units[number]
        data = shard_file(replace(shard, attributes=shard_attributes(self.plan, unit)))
        name = shard_name(number, sha256(data))
        publish(self.paths.shard(name), data, self.paths.temporary)
        self.done[number] = describe_stored(unit, name, len(data), shard)
        self._skipped[number] = shard.skipped

    def finish(self) -> Manifest:
        """Writes skipped.jsonl and the complete STORE.json, and removes the shards that it does not name.

        Raises:
            StorageError: the file system fails.
        """
        units = tuple(self.done[number] for number in range(len(self.plan.units)))
        manifest = self.plan.completed(units)
        lines = skipped_lines(self.skipped_items())
        publish(self.paths.skipped, lines.encode(), self.paths.temporary)
        write_manifest(self.paths.root, manifest)
        named = {unit.shard for unit in units}
        with translate_os_errors(self.paths.root):
            for path in self.paths.shard_files():
                if path.name not in named:
                    path.unlink()
        return manifest

    def resume(self, named: Collection[str] = ()) -> None:
        """Finds the units that are done by their shards, and moves invalid shards to quarantine/.

        Args:
            named: the shards that STORE.json names. They take precedence over other shards of the same unit.
        """
        numbers = {unit.digest: number for number, unit in enumerate(self.plan.units)}
        for path in sorted(self.paths.shard_files(), key=lambda file: file.name not in named):
            shard = self._read_or_quarantine(path)
            if shard is None:
                continue
            number = numbers.get(shard.attributes["digest"])
            if number is not None and number not in self.done:
                size = path.stat().st_size
                self.done[number] = describe_stored(self.plan.units[number], path.name, size, shard)
                self._skipped[number] = shard.skipped

    def _read_or_quarantine(self, path: Path) -> Shard | None:
        try:
            shard = read_shard(path)
            if "digest" not in shard.attributes:
                raise IntegrityError(f"{path.name} has no digest of its unit")
        except IntegrityError as error:
            _log.warning("%s; it was moved to quarantine/ and its unit is computed again", error)
            move_into(path, self.paths.quarantine)
            return None
        return shard


@contextmanager
def open_for_writing(
    path: Path, plan: Manifest, update: bool = False, remove_missing: bool = False
) -> Iterator[StoreWriter]:
    """Locks the store at `path`, which is created if missing, and yields its writer, with the units that are done.

    Args:
        update, remove_missing: see `check_matches_plan`.

    Raises:
        LockedError: another job is writing the store.
        MismatchError: recipe or data differ; the message names every difference.
        StoreError: `path` is not a store.
        StorageError: the file system fails.
    """
    paths = StorePaths(path)
    _check_writable(path)
    if paths.manifest.exists():  # before any file is changed; checked again under the lock
        check_matches_plan(path, read_manifest(path), plan, update, remove_missing)
    with _opened(paths):
        writer = StoreWriter(path, plan)
        if not paths.manifest.exists():
            write_manifest(path, plan)
        old = read_manifest(path)
        check_matches_plan(path, old, plan, update, remove_missing)
        writer.resume({unit.shard for unit in old.units})
        yield writer


@contextmanager
def open_for_conversion(path: Path, plan: Manifest) -> Iterator[StoreWriter]:
    """Locks the complete store at `path` of an earlier format and yields a writer for the same store as `plan`.

    Until `StoreWriter.finish` the old STORE.json and its shards stay as they are, so the store can be read at any time,
    and an interrupted conversion continues.

    Raises:
        LockedError, StoreError, StorageError: as `open_for_writing`.
    """
    _check_writable(path)
    with _opened(StorePaths(path)):
        writer = StoreWriter(path, plan)
        writer.resume()
        yield writer


def check_matches_plan(
    path: Path, old: Manifest, plan: Manifest, update: bool = False, remove_missing: bool = False
) -> None:
    """Raises MismatchError, with every difference, unless the store at `path` has the recipe and data of `plan`.

    Args:
        old: the manifest of the store.
        update: accept other data, but not another recipe, and not data that lacks scenes of the store.
        remove_missing: accept with `update` that scenes of the store are missing, and remove them from the store.
    """
    check_format(path, old)
    recipe = old.recipe
    if recipe.views == 1 and plan.recipe.views == 2:  # the first view stays as it is
        recipe = replace(recipe, views=2)
    check_recipe(path, recipe, plan.recipe, "use another --store")
    data = old.differences(plan)
    if data and not update:
        raise OtherDataError(f"{path} differs from this extraction: {'; '.join(data)}")
    missing = sorted(old.scenes.keys() - plan.scenes.keys())
    if missing and not remove_missing:
        raise MismatchError(
            f"the data lacks {len(missing)} of the {len(old.scenes)} scenes in {path}: {', '.join(missing)}; restore "
            f"their annotation files, or give --remove_missing to remove these scenes from the store"
        )


def _check_writable(path: Path) -> None:
    """Raises StoreError if `path` is something other than a store, or if a part of the store is a link."""
    paths = StorePaths(path)
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path} is a file, and only a store in a folder can be written to; choose another --store")
    if not (paths.manifest.exists() or is_marked(paths.lock, STORE) or is_unused(paths.lock, STORE)):
        lost = "; if its STORE.json was lost, run `stage2 store repair`" if paths.shard_files() else ""
        raise StoreError(f"{path} exists and is not a feature store; choose another --store{lost}")
    for part in (paths.shards, paths.temporary, paths.quarantine, paths.lock):
        if part.is_symlink():
            raise StoreError(f"{part} is a link, which stores must not have; choose another --store")


@contextmanager
def _opened(paths: StorePaths) -> Iterator[None]:
    """Locks and marks the store, creates its folders, and removes the temporary files of a killed job."""
    with own_folder(paths.lock, STORE):
        for folder in (paths.shards, paths.temporary):
            make_folder(folder)
        with translate_os_errors(paths.root):
            fsync_folder(paths.root)
            fsync_folder(paths.root.parent)
            remove_all_temporary_files(paths.temporary)
        yield
