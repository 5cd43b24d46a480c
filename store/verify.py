"""Checks a store against its checksums, its plan, its recipe and plain sense; changes nothing."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from configs.errors import IntegrityError
from store.crops import crop_differences, crops_within
from store.faults import Fault, unit_faults
from store.format.manifest import COMPLETE, Manifest, read_manifest, shard_files
from store.format.packed import read_packed
from store.format.shard import SKIPPED, matches, read_shard, skipped_lines

_THREADS = 2  # hashing and reading release the interpreter; each holds one shard


@dataclass(frozen=True)
class Report:
    """What was found."""

    path: Path
    manifest: Manifest
    faults: tuple[Fault, ...]
    crops: "Report | None" = None  # of the store of crops within

    @property
    def bad_units(self) -> set[int]:
        """The numbers of the units whose shards must be computed again."""
        return {fault.unit for fault in self.faults if fault.unit >= 0}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        units = self.manifest.units
        found = {
            "path": str(self.path),
            "sound": not self.faults and (self.crops is None or not self.crops.faults),
            "complete": self.manifest.state == COMPLETE,
            "fingerprint": self.manifest.fingerprint,
            "units": len(units),
            "bad_units": sorted(self.bad_units),
            "bytes": sum(unit.bytes for unit in units),
            "persons": sum(unit.stored_persons for unit in units),
            "fault_counts": dict(sorted(Counter(fault.kind for fault in self.faults).items())),
            "faults": [fault.to_dict() for fault in self.faults],
        }
        return found if self.crops is None else found | {"crops": self.crops.to_dict()}


def verify(path: Path) -> Report:
    """Reads every byte of the store at `path` and names all that is wrong with it, at the speed of disk and hash.

    The store of crops within it is checked in the same way, and that it has the same rows.

    Checked are: every shard's sha256, its digests and recipe against STORE.json, its counts against the plan (planned
    = stored + skipped), NaN and infinite values, rows that are all zero or all the same, datasets that are declared
    and not stored, missing and stray shards, and skipped.jsonl. An unfinished store counts as faulty.

    Raises:
        StoreError: there is no store at `path`. IntegrityError: its STORE.json is damaged.
    """
    report, folder = verify_one(path), crops_within(path)
    if folder is None:
        return report
    crops = verify_one(folder)
    if report.manifest.state == crops.manifest.state == COMPLETE:
        texts = crop_differences(report.manifest, crops.manifest)
        faults = [Fault("other_rows", f"{folder} has other rows than {path}: {text}") for text in texts]
        crops = replace(crops, faults=(*crops.faults, *faults))
    return replace(report, crops=crops)


def verify_one(path: Path) -> Report:
    """`verify` of the store at `path` without what lies within it."""
    manifest = read_manifest(path)
    if manifest.state != COMPLETE:
        return Report(path, manifest, tuple(_unfinished_faults(path)))
    if path.is_file():
        return Report(path, manifest, tuple(_packed_faults(path, manifest)))
    checked = _check_units(path, manifest)
    faults = [fault for found, _ in checked for fault in found]
    lines = "".join(text for _, text in checked)
    return Report(path, manifest, (*faults, *_folder_faults(path, manifest, lines, bool(faults))))


Checked = tuple[list[Fault], str]  # a unit's faults, and its lines of skipped.jsonl


def _check_units(path: Path, manifest: Manifest) -> list[Checked]:
    """Each unit in turn, several at once."""
    numbers = range(len(manifest.units))
    total = sum(unit.bytes for unit in manifest.units)
    checked = []
    with (
        tqdm(total=total, unit="B", unit_scale=True, desc="verify", disable=None) as bar,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        for number, one in zip(numbers, pool.map(partial(_check_unit, path, manifest), numbers), strict=True):
            checked.append(one)
            bar.update(manifest.units[number].bytes)
    return checked


def _check_unit(path: Path, manifest: Manifest, number: int) -> Checked:
    unit = manifest.units[number]
    file = path / "shards" / unit.shard
    try:
        shard = read_shard(file)
        size = file.stat().st_size
    except (IntegrityError, FileNotFoundError) as error:  # an update may remove it at any moment
        kind = "damaged_shard" if file.exists() else "missing_shard"
        return [Fault(kind, str(error), number, unit.scene)], ""
    return unit_faults(manifest, number, shard, size), skipped_lines(shard.skipped)


def _packed_faults(path: Path, manifest: Manifest) -> Iterator[Fault]:
    try:
        shards = read_packed(path, manifest)
    except IntegrityError as error:
        yield Fault("damaged_file", str(error))
        return
    for number, shard in enumerate(shards):
        yield from unit_faults(manifest, number, shard, manifest.units[number].bytes)


def _unfinished_faults(path: Path) -> Iterator[Fault]:
    """What is wrong with a store that is still being made: that, and any damaged shard."""
    yield Fault("unfinished", f"the extraction of {path} has not finished; run the same `stage2 extract` again")
    for file in shard_files(path):
        if not matches(file):
            yield Fault("damaged_shard", f"{file} does not match its checksum; the next extraction computes it again")


def _folder_faults(path: Path, manifest: Manifest, lines: str, damaged: bool) -> Iterator[Fault]:
    """What lies beside the shards; where a shard is damaged, what its lines of skipped.jsonl were is not known."""
    named = {unit.shard for unit in manifest.units}
    for file in shard_files(path):
        if file.name not in named:
            yield Fault("stray_shard", f"{file} is not named by STORE.json (an interrupted update?)")
    listed = path / SKIPPED
    if not listed.is_file() or (not damaged and listed.read_bytes() != lines.encode()):
        yield Fault("wrong_skipped", f"{listed} is missing, or is not what the shards say was skipped")
