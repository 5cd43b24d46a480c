"""Checks a store against its checksums, its plan, its recipe and sanity rules, without changing it."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from configs.errors import IntegrityError
from configs.read_file import MANIFEST_BYTES, is_no_access, read_file
from store.checks.faults import Fault, unit_faults
from store.crops import crop_differences, crops_folder
from store.format.manifest import COMPLETE, Manifest
from store.format.packed import read_packed
from store.format.paths import EXTRACT, StorePaths
from store.format.shard import skipped_lines
from store.format.shard_file import read_shard, shard_is_intact, unreadable
from store.open import FolderStore, PackedStore, open_store

_THREADS = 2  # hashing and reading release the GIL; each thread holds one shard in memory


@dataclass(frozen=True)
class Report:
    """The faults of a store."""

    path: Path
    manifest: Manifest
    faults: tuple[Fault, ...]
    crops: "Report | None" = None  # of the store of crops in it

    @property
    def bad_units(self) -> set[int]:
        """The numbers of the units whose shards must be computed again."""
        return {fault.unit for fault in self.faults if fault.unit >= 0}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        units = self.manifest.units
        values = {
            "path": str(self.path),
            "sound": not self.faults and (self.crops is None or not self.crops.faults),
            "complete": self.manifest.state == COMPLETE,
            "fingerprint": self.manifest.fingerprint,
            "units": len(units),
            "bad_units": sorted(self.bad_units),
            "bytes": sum(unit.bytes for unit in units),
            "persons": self.manifest.stored_rows()["persons"],
            "fault_counts": dict(sorted(Counter(fault.kind for fault in self.faults).items())),
            "faults": [fault.to_dict() for fault in self.faults],
        }
        return values if self.crops is None else values | {"crops": self.crops.to_dict()}


def verify(path: Path) -> Report:
    """Reads every byte of the store at `path` and reports all faults, as fast as the disk and sha256 allow.

    Checks the sha256, digests and recipe of every shard, its counts against the plan (planned = stored + skipped), NaN
    and infinite values, rows that are all zero or all the same, datasets that are declared but not stored, missing
    and left-over shards, and skipped.jsonl. An unfinished store counts as faulty.

    The store of crops in a feature store is checked too, and must have the same rows.

    Raises:
        StoreError: there is no store at `path`.
        IntegrityError: its STORE.json is damaged. AccessError: a file may not be read.
    """
    report, folder = verify_one(path), crops_folder(path)
    if folder is None:
        return report
    crops = verify_one(folder)
    if report.manifest.state == crops.manifest.state == COMPLETE:
        texts = crop_differences(report.manifest, crops.manifest)
        faults = [Fault("other_rows", f"{folder} has other rows than {path}: {text}") for text in texts]
        crops = replace(crops, faults=(*crops.faults, *faults))
    return replace(report, crops=crops)


def verify_one(path: Path) -> Report:
    """As `verify`, without the store of crops in the store at `path`."""
    store = open_store(path)
    if store.manifest.state != COMPLETE:
        faults = list(_unfinished_faults(path))
    elif isinstance(store, PackedStore):
        faults = list(_packed_faults(store))
    else:
        faults = _folder_faults(store)
    return Report(path, store.manifest, tuple(faults))


def _unfinished_faults(path: Path) -> Iterator[Fault]:
    yield Fault("unfinished", f"the extraction of {path} has not finished; {EXTRACT}")
    for file in StorePaths(path).shard_files():
        if not shard_is_intact(file):
            yield Fault("damaged_shard", f"{file} does not match its checksum; the next extraction computes it again")


def _packed_faults(store: PackedStore) -> Iterator[Fault]:
    try:
        shards = read_packed(store.path, store.manifest)
    except IntegrityError as error:
        yield Fault("damaged_file", str(error))
        return
    for number, shard in enumerate(shards):
        yield from unit_faults(store.manifest, number, shard, store.manifest.units[number].bytes)


def _folder_faults(store: FolderStore) -> list[Fault]:
    checked = _check_units(store)
    faults = [fault for unit_result, _ in checked for fault in unit_result]
    lines = "".join(text for _, text in checked)
    return [*faults, *_file_faults(store, lines, bool(faults))]


Checked = tuple[list[Fault], str]  # a unit's faults, and its lines of skipped.jsonl


def _check_units(store: FolderStore) -> list[Checked]:
    """Checks the units in several threads; the results are in the units' order."""
    units = store.manifest.units
    checked = []
    with (
        tqdm(total=sum(unit.bytes for unit in units), unit="B", unit_scale=True, desc="verify", disable=None) as bar,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        for unit, result in zip(units, pool.map(partial(_check_unit, store), range(len(units))), strict=True):
            checked.append(result)
            bar.update(unit.bytes)
    return checked


def _check_unit(store: FolderStore, number: int) -> Checked:
    unit = store.manifest.units[number]
    file = store.paths.shard(unit.shard)
    try:
        shard = read_shard(file)
        size = file.stat().st_size
    except (IntegrityError, FileNotFoundError) as error:  # an update may remove the shard at any time
        kind = "damaged_shard" if file.exists() else "missing_shard"
        return [Fault(kind, str(error), number, unit.scene)], ""
    return unit_faults(store.manifest, number, shard, size), skipped_lines(shard.skipped)


def _file_faults(store: FolderStore, lines: str, damaged: bool) -> Iterator[Fault]:
    """Left-over shards and a wrong skipped.jsonl.

    Args:
        lines: the expected text of skipped.jsonl.
        damaged: whether there are faulty shards, so that `lines` may be incomplete.
    """
    named = {unit.shard for unit in store.manifest.units}
    for file in store.paths.shard_files():
        if file.name not in named:
            yield Fault("stray_shard", f"{file} is not named in STORE.json (from an interrupted update?)")
    skipped = store.paths.skipped
    if _is_wrong(skipped, None if damaged else lines.encode()):
        yield Fault("wrong_skipped", f"{skipped} is missing, or differs from the skipped items in the shards")


def _is_wrong(skipped: Path, expected: bytes | None) -> bool:
    """Whether skipped.jsonl cannot be read, or has other bytes than `expected`; None: any bytes are accepted."""
    try:
        text = read_file(skipped, max_bytes=MANIFEST_BYTES)
    except OSError as error:
        if is_no_access(error):
            raise unreadable(skipped, error, EXTRACT) from error
        return True
    return expected is not None and text != expected
