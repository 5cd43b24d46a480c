"""Builds a store unit by unit so that it can be killed at any moment and continued.

A unit is done when a shard that carries its digest is published under the sha256 of its bytes and still matches it;
nothing else is believed, and nothing published is ever opened for writing.
"""

import logging
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from configs.errors import IntegrityError, MismatchError, StorageError, StoreError
from store.files import fsync_folder, locked, publish, sha256, storage_errors
from store.format.manifest import (
    COMPLETE,
    NAME,
    Manifest,
    Unit,
    is_store,
    read_manifest,
    serves,
    shard_files,
    write_manifest,
)
from store.format.packed_header import REMEDY, whole
from store.format.recipe import check_recipe
from store.format.shard import SKIPPED, Shard, Skipped, matches, read_shard, shard_file, skipped_lines
from store.format.units import attributes_of, committed

_log = logging.getLogger("stage2")


class StoreWriter:
    """An open, locked store. `done` maps the plan's unit numbers to committed units."""

    def __init__(self, path: Path, plan: Manifest) -> None:
        self.path = path
        self.plan = plan
        self.done: dict[int, Unit] = {}
        self._skipped: dict[int, tuple[Skipped, ...]] = {}
        self._by_visual_digest: dict[str, Path] = {}

    @property
    def pending(self) -> list[int]:
        """The numbers of the units that are still to be computed."""
        return [number for number in range(len(self.plan.units)) if number not in self.done]

    def features_of(self, unit: Unit) -> Shard | None:
        """A valid shard whose features `unit` can take over, where only its pairs or labels have changed."""
        path = self._by_visual_digest.get(unit.visual_digest)
        return None if path is None else read_shard(path)

    def forget(self, numbers: Collection[int]) -> None:
        """Makes committed units pending again and takes over no feature of theirs; their shards stay until `finish`."""
        for number in numbers:
            self.done.pop(number, None)
            self._by_visual_digest.pop(self.plan.units[number].visual_digest, None)

    def commit(self, number: int, shard: Shard) -> None:
        """Publishes unit `number`; when this returns the unit survives a kill or a power cut. Raises StorageError."""
        unit = self.plan.units[number]
        image = shard_file(replace(shard, attributes=attributes_of(self.plan, unit)))
        name = f"u{number:08d}-{sha256(image)}.h5"
        publish(self.path / "shards" / name, image, self.path / ".tmp")
        self.done[number] = committed(unit, name, len(image), shard)
        self._skipped[number] = shard.skipped

    def finish(self) -> Manifest:
        """Publishes skipped.jsonl and the complete STORE.json and removes the shards that it does not name.

        Raises:
            StorageError: the file system refuses.
        """
        numbers = range(len(self.plan.units))
        units = tuple(self.done[number] for number in numbers)
        manifest = self.plan.completed(units)
        lines = skipped_lines(item for number in numbers for item in self._skipped[number])
        publish(self.path / SKIPPED, lines.encode(), self.path / ".tmp")
        write_manifest(self.path, manifest)
        named = {unit.shard for unit in units}
        with storage_errors(self.path):
            for path in shard_files(self.path):
                if path.name not in named:
                    path.unlink()
        return manifest

    def resume(self, named: Collection[str] = ()) -> None:
        """Believes what the shards' own checksums and digests prove; moves the rest to quarantine/.

        Where two shards are of one unit, the one that STORE.json has `named` counts.
        """
        numbers = {unit.digest: number for number, unit in enumerate(self.plan.units)}
        for path in sorted(shard_files(self.path), key=lambda file: file.name not in named):
            shard = self._valid(path)
            if shard is None:
                continue
            number = numbers.get(shard.attributes["digest"])
            if number is not None and number not in self.done:
                size = path.stat().st_size
                self.done[number] = committed(self.plan.units[number], path.name, size, shard)
                self._skipped[number] = shard.skipped
            self._by_visual_digest[shard.attributes["visual_digest"]] = path

    def _valid(self, path: Path) -> Shard | None:
        try:
            shard = read_shard(path)
            if not {"digest", "visual_digest"} <= set(shard.attributes):
                raise IntegrityError(f"{path.name} does not say which unit it is")
        except IntegrityError as error:
            _log.warning("%s; it was moved to quarantine/ and its unit is computed again", error)
            quarantine = self.path / "quarantine"
            with storage_errors(quarantine):
                quarantine.mkdir(exist_ok=True)
                path.rename(quarantine / path.name)
            return None
        return shard


@contextmanager
def open_for_writing(path: Path, plan: Manifest, update: bool = False) -> Iterator[StoreWriter]:
    """Locks the store at `path`, made where absent, and yields its writer, with what is already done.

    A store of another recipe is always refused; one of other data too, unless `update` is given.

    Raises:
        LockedError: another job is writing it.
        MismatchError: recipe or data differ; the message names what.
        StoreError: there is something else at `path`.
        StorageError: the file system refuses.
    """
    _refuse_strangers(path)
    if (path / NAME).exists():  # before anything is touched; under the lock it is looked at again
        refuse_mismatch(path, read_manifest(path), plan, update)
    _make_folders(path)
    with locked(path / ".lock"):
        with storage_errors(path):
            _empty(path / ".tmp")
        writer = StoreWriter(path, plan)
        if not (path / NAME).exists():
            write_manifest(path, plan)
        old = read_manifest(path)
        refuse_mismatch(path, old, plan, update)
        writer.resume({unit.shard for unit in old.units})
        yield writer


def finished(path: Path, wanted: Manifest) -> bool:
    """Whether the store at `path` is complete, every shard matches its checksum, and it holds all of `wanted`.

    Raises:
        IntegrityError: it would serve, is damaged, and an extraction of `wanted` could not mend it: it is a packed
            file, or was made of more frames or persons.
    """
    if not is_store(path):
        return False
    old = read_manifest(path)
    if old.state != COMPLETE or not serves(old, wanted):
        return False
    if path.is_file():
        if not whole(path):
            raise IntegrityError(f"{path} is damaged: it does not match its checksum; {REMEDY}")
        return True
    damaged = _damaged(path, old)
    if damaged and old.selection != wanted.selection:
        raise IntegrityError(
            f"{path} is damaged ({damaged} of {len(old.units)} shards) and holds more than this command asks for; run "
            f"`stage2 store repair {path} --data_path DATA`"
        )
    return not damaged


def refuse_mismatch(path: Path, old: Manifest, plan: Manifest, update: bool = False) -> None:
    """Raises MismatchError, every difference named, unless the store is of the plan's recipe and data.

    With `update` other data is accepted and another recipe is not.
    """
    check_recipe(path, old.recipe, plan.recipe, "use another --store")
    data = old.differences(plan)
    if data and not update:
        raise MismatchError(
            f"{path} was made from other data: {'; '.join(data)}; give --update to compute what changed, "
            f"or another --store"
        )


def _refuse_strangers(path: Path) -> None:
    """Raises StoreError where something else than a store is at `path`, or a part of the store is a link."""
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path} is a file, no feature store that can be written to; choose another --store")
    known = (path / NAME).exists() or (path / ".lock").exists()
    ours = {path / "shards", path / ".tmp"}  # a job killed before it had its lock left these, empty
    if path.exists() and not known and any(entry not in ours for entry in path.rglob("*")):
        raise StoreError(f"{path} exists and is no feature store; choose another --store")
    for name in ("shards", ".tmp", "quarantine", ".lock"):
        if (path / name).is_symlink():
            raise StoreError(f"{path / name} is a link, which no store has; choose another --store")


def _empty(folder: Path) -> None:
    """Removes what a killed run left."""
    for leftover in folder.iterdir():
        if leftover.is_dir() and not leftover.is_symlink():
            raise StoreError(f"{leftover} is a folder, which no store has there; remove it")
        leftover.unlink()


def _make_folders(path: Path) -> None:
    try:
        for folder in (path, path / "shards", path / ".tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        fsync_folder(path)
        fsync_folder(path.parent)
    except OSError as error:
        raise StorageError(
            f"could not make the store {path} ({error}); choose a --store that can be written"
        ) from error


def _damaged(path: Path, manifest: Manifest) -> int:
    """How many shards of a complete store are missing or do not match their checksum; at the speed of hash or disk."""
    with ThreadPoolExecutor(4) as pool:  # hashing and reading release the interpreter
        files = [path / "shards" / unit.shard for unit in manifest.units]
        return sum(not good for good in pool.map(matches, files))
