"""`stage2 store verify --data_path`: reads all annotations and images, and compares them with those of a store."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from configs.errors import IntegrityError
from extract.annotations.jrdb import IMAGES, scene_digests
from extract.images.identity import ImageIdentities
from store.checks.faults import Fault
from store.checks.verify import Report
from store.checks.verify import verify as verify_store
from store.format.manifest import COMPLETE, Manifest
from store.format.recipe import FIRST_FORMAT
from store.format.shard import Shard
from store.format.shard_file import read_shard_tables
from store.open import FolderStore, open_store


def verify(path: Path, data_path: Path | None) -> Report:
    """Verifies the store at `path`, and compares it with its data if `data_path` is given. Raises as both."""
    report = verify_store(path)
    return report if data_path is None else compare_with_data(report, data_path)


def compare_with_data(report: Report, data_path: Path) -> Report:
    """Returns `report`, of a store and the crops in it, with the faults of their data.

    No cache is used. A store of format 1 has no digest of its images, but the sha256 of each image with a stored frame.

    Raises:
        DataError: the data cannot be read.
    """
    identities = ImageIdentities()
    faults = tuple(_data_faults(report, data_path, identities))
    crops = report.crops
    if crops is not None:
        crops = replace(crops, faults=(*crops.faults, *_data_faults(crops, data_path, identities)))
    return replace(report, faults=(*report.faults, *faults), crops=crops)


def _data_faults(report: Report, data_path: Path, identities: ImageIdentities) -> Iterator[Fault]:
    manifest = report.manifest
    current = replace(manifest, scenes=scene_digests(data_path, identities))
    stored = dict(_image_digests(report))
    found = list(_image_faults(manifest, stored, data_path, identities))
    scenes = {fault.scene for fault in found}
    for text in manifest.scene_differences(current):
        if not text.startswith("changed images"):
            yield Fault("other_data", f"{report.path} was made from other data than {data_path}: {text}")
    yield from found
    if manifest.format == FIRST_FORMAT:
        return
    for name in sorted(manifest.scenes.keys() & current.scenes.keys() - scenes):
        if manifest.scenes[name].images != current.scenes[name].images:
            message = f"scene {name}: an image that is not stored has changed, or was added or removed"
            yield Fault("changed_image", message, scene=name)


def _image_digests(report: Report) -> Iterator[tuple[tuple[str, str], str]]:
    """Yields ((scene, frame), sha256 of the image) for each stored frame. Damaged shards are left out."""
    store = open_store(report.path)
    if store.manifest.state != COMPLETE:
        return
    for shard in _readable_shards(store, report) if isinstance(store, FolderStore) else store.shards():
        for frame, sha256 in zip(shard.frame_name.tolist(), shard.frame_sha256.tolist(), strict=True):
            yield (shard.scene, frame), sha256


def _readable_shards(store: FolderStore, report: Report) -> Iterator[Shard]:
    for number, unit in enumerate(store.manifest.units):
        if number not in report.bad_units:
            try:
                yield read_shard_tables(store.paths.shard(unit.shard)).shard
            except IntegrityError:  # damaged since the store was verified
                continue


def _image_faults(
    manifest: Manifest, stored: dict[tuple[str, str], str], data_path: Path, identities: ImageIdentities
) -> Iterator[Fault]:
    """Yields a fault for each stored frame whose image has other bytes now."""
    for scene in manifest.scenes:
        frames = [frame for of, frame in stored if of == scene]
        actual = identities.of_folder(data_path / IMAGES / scene, frames, data_path / IMAGES)
        for frame, identity in zip(frames, actual, strict=True):
            expected = stored[scene, frame]
            if identity != expected:
                state = f"sha256 {identity[:12]}" if len(identity) == 64 else identity
                message = f"{scene} {frame}: the image is not the one that was extracted ({state}, not {expected[:12]})"
                yield Fault("changed_image", message, scene=scene, frame=frame)
