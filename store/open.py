"""Opens stores: a folder of shards or one packed file, with the same methods. Only this file tells them apart."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from configs.errors import IncompleteError, MismatchError, StoreError
from configs.read_file import MANIFEST_BYTES, read_file
from store.format.manifest import COMPLETE, Manifest, parse_manifest
from store.format.packed import read_packed
from store.format.packed_header import PACK_AGAIN, has_packed_header, packed_is_intact, read_header
from store.format.paths import EXTRACT, StorePaths
from store.format.recipe import FORMAT
from store.format.shard import Shard
from store.format.shard_file import read_shard, shard_is_intact, unreadable
from store.format.units import check_shard_of_unit

Result = TypeVar("Result")


@dataclass(frozen=True)
class FolderStore:
    """A store in a folder, which extraction can continue, update and repair."""

    path: Path
    manifest: Manifest

    @property
    def paths(self) -> StorePaths:
        """The store's files."""
        return StorePaths(self.path)

    @property
    def remedy(self) -> str:
        """What to do about damage."""
        return _repair_command(self.path)

    def read_unit(self, number: int) -> Shard:
        """The shard of one unit of a complete store. Raises IntegrityError if it is damaged or of another store."""
        unit = self.manifest.units[number]
        shard = read_shard(self.paths.shard(unit.shard))
        check_shard_of_unit(self.manifest, unit, shard, self.path)
        return shard

    def shards(self) -> Iterator[Shard]:
        """The checked shards of a complete store in order, one in memory at a time. Raises IntegrityError."""
        return (self.read_unit(number) for number in range(len(self.manifest.units)))

    def map_shards(self, function: Callable[[int, Shard], Result]) -> list[Result]:
        """`function(number, shard)` of every checked shard, in order, in two threads. Raises IntegrityError."""

        def read_and_call(number: int) -> Result:
            return function(number, self.read_unit(number))

        with ThreadPoolExecutor(2) as pool:  # reading and hashing release the GIL, parsing does not
            return list(pool.map(read_and_call, range(len(self.manifest.units))))

    def bytes_on_disk(self) -> int:
        """The size of all shards."""
        return sum(_size(file) for file in self.paths.shards.glob("*.h5"))

    def damage(self) -> str:
        """Which part of a complete store does not match its checksums; "" if all of it does."""
        files = [self.paths.shard(unit.shard) for unit in self.manifest.units]
        with ThreadPoolExecutor(4) as pool:  # reading and hashing release the GIL
            damaged = sum(not intact for intact in pool.map(shard_is_intact, files))
        return f"{damaged} of {len(files)} shards" if damaged else ""


@dataclass(frozen=True)
class PackedStore:
    """A store in one packed file, which is never modified. It is read into memory as a whole."""

    path: Path
    manifest: Manifest
    remedy = PACK_AGAIN

    def shards(self) -> Iterator[Shard]:
        """The checked shards in order. Raises IntegrityError."""
        for unit, shard in zip(self.manifest.units, read_packed(self.path, self.manifest), strict=True):
            check_shard_of_unit(self.manifest, unit, shard, self.path)
            yield shard

    def map_shards(self, function: Callable[[int, Shard], Result]) -> list[Result]:
        """`function(number, shard)` of every checked shard, in order. Raises IntegrityError."""
        return [function(number, shard) for number, shard in enumerate(self.shards())]

    def bytes_on_disk(self) -> int:
        """The size of the file."""
        return _size(self.path)

    def damage(self) -> str:
        """A text if the file does not match its checksum; else ""."""
        return "" if packed_is_intact(self.path) else "it does not match its checksum"


def _size(file: Path) -> int:
    """Bytes; 0 if an update has removed the file since it was listed. Reading it raises the error later."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _repair_command(path: Path) -> str:
    return f"run `stage2 store repair {path} --data_path DATA`"


def is_packed(path: Path) -> bool:
    """Whether a store at `path` is, or would have to be, one packed file."""
    return path.is_file()


def is_store(path: Path) -> bool:
    """Whether `path` looks like a store, damaged or not."""
    return StorePaths(path).manifest.exists() or (is_packed(path) and has_packed_header(path))


def open_store(path: Path) -> FolderStore | PackedStore:
    """The store at `path`, finished or not; reads its manifest only.

    Raises:
        StoreError: there is no store at `path`.
        IntegrityError: its manifest is damaged, or of another format version. AccessError: it may not be read.
    """
    if is_packed(path):
        return PackedStore(path, parse_manifest(read_header(path).text, path, PACK_AGAIN))
    file = StorePaths(path).manifest
    remedy = f"{_repair_command(path)}, which writes it again from the shards"
    try:
        text = read_file(file, max_bytes=MANIFEST_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(
            f"{path} is not a feature store (it has no {file.name}); make one with `stage2 extract`"
        ) from error
    except OSError as error:
        raise unreadable(file, error, remedy) from error
    return FolderStore(path, parse_manifest(text, file, remedy))


def open_complete_store(path: Path) -> FolderStore | PackedStore:
    """The finished store at `path`. Raises as `open_store`, and IncompleteError if its extraction has not finished."""
    store = open_store(path)
    if store.manifest.state != COMPLETE:
        raise IncompleteError(f"the extraction of {path} has not finished; {EXTRACT}")
    return store


def check_format(path: Path, manifest: Manifest) -> None:
    """Raises MismatchError if the store at `path`, whose manifest is given, must be converted for this command."""
    if manifest.format != FORMAT:
        raise MismatchError(
            f"{path} has format {manifest.format}, which identifies images by name and size only, so it cannot be "
            f"compared with the data; convert it to format {FORMAT}, without computing features again: "
            f"{_repair_command(path)}"
        )


def read_manifest(path: Path) -> Manifest:
    """The manifest of the store at `path`. Raises as `open_store`."""
    return open_store(path).manifest


def read_complete_manifest(path: Path) -> Manifest:
    """The manifest of the finished store at `path`. Raises as `open_complete_store`."""
    return open_complete_store(path).manifest
