"""Converts a store of format 1 to the current format: its features are kept, and no crop is forwarded.

The shards contain the sha256 of each image, so it is certain that the features belong to the images of the data.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from configs.errors import IntegrityError, MismatchError
from configs.panorama import AUTO, YES, edges_touch
from extract.annotations.jrdb import scene_digests
from extract.images.identity import ImageIdentities
from extract.units.assemble import assemble_from_features
from extract.units.plan import PlannedUnit
from extract.units.prepare import prepare_frame
from store.format.manifest import Manifest
from store.format.paths import StorePaths
from store.format.recipe import FORMAT
from store.format.shard import Shard
from store.format.shard_file import read_shard, read_shard_tables
from store.tables import Ints


def converted_manifest(store: Path, old: Manifest, data_path: Path, identities: ImageIdentities) -> Manifest:
    """Returns the manifest, without units, that the store will have in the current format.

    Format 1 took each image for a panorama. If all images are wide, that is what "auto" does.

    Raises:
        MismatchError: the annotations are not those of the store.
    """
    paths = StorePaths(store)
    sizes: list[Ints] = [np.empty((0, 2), np.int32)]
    for unit in old.units:
        try:
            sizes.append(read_shard_tables(paths.shard(unit.shard)).shard.frame_size)
        except IntegrityError:  # a damaged shard is computed again
            continue
    size = np.concatenate(sizes).T
    panorama = AUTO if bool(np.all(edges_touch(AUTO, size[0], size[1]))) else YES
    recipe = replace(old.recipe, panorama=panorama, format=FORMAT)
    new = replace(old, recipe=recipe, scenes=scene_digests(data_path, identities), units=(), format=FORMAT)
    differences = [text for text in old.scene_differences(new) if not text.startswith("changed images")]
    if differences:
        raise MismatchError(
            f"{store} was made from other data: {'; '.join(differences)}; give the original data with --data_path"
        )
    return new


def convert_unit(store: Path, old_shard: str, unit: PlannedUnit, data_path: Path, new: Manifest) -> Shard | None:
    """Returns the shard of `unit` with the features of the file `old_shard`; None if they must be computed again.

    That is so if the shard is damaged, or an image that could not be used can be used now.

    Raises:
        MismatchError: an image has other bytes than the one that was extracted.
    """
    try:
        old = read_shard(StorePaths(store).shard(old_shard))
    except IntegrityError:
        return None
    _check_images(old, unit, store)
    recipe = new.recipe
    for frame, name in enumerate(unit.tables.frame_name.tolist()):
        if name not in old.frame_name:
            reasons = {item.reason for item in old.skipped if item.kind == "frame" and item.frame == name}
            prepared = prepare_frame(data_path, unit, frame, recipe.crop_size, recipe.panorama)
            unusable = any(item.kind == "frame" and item.frame == name for item in unit.skipped)
            if not reasons or (not unusable and prepared.reason not in reasons):
                return None
    shard = assemble_from_features(unit, old, recipe.panorama)
    same = all(
        np.array_equal(getattr(shard, name), getattr(old, name))
        for name in ("frame_name", "frame_offset", "frame_index", "box", "person_id")
    )
    return shard if same else None


def _check_images(old: Shard, unit: PlannedUnit, store: Path) -> None:
    assert unit.image_ids is not None
    current = dict(zip(unit.tables.frame_name.tolist(), unit.image_ids.tolist(), strict=True))
    for frame, sha256 in zip(old.frame_name.tolist(), old.frame_sha256.tolist(), strict=True):
        if current.get(frame, sha256) != sha256:
            raise MismatchError(
                f"{store}: the image of {unit.scene} {frame} is not the one that was extracted; restore it, or extract "
                f"into another --store"
            )
