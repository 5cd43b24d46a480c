"""A loaded store has the rows that were written, and only shards that belong to it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from configs.errors import IntegrityError, StoreError
from store.format.manifest import write_manifest
from store.open import read_manifest
from store.pack import pack_store
from store.reader import load_store, open_stored_features, store_info
from tests.stores import UNITS, make_plan, replace_shard, unit_shard, write_units


def test_a_loaded_store_has_the_written_rows(path: Path) -> None:
    features = load_store(path)
    shards = [unit_shard(number) for number in range(UNITS)]
    tables = features.tables
    np.testing.assert_array_equal(features.visual, np.concatenate([shard.visual for shard in shards]))
    assert features.visual_flipped is None
    for name in ("box", "person_id", "frame_name", "frame_index", "frame_size", "spatial"):
        np.testing.assert_array_equal(getattr(tables, name), np.concatenate([getattr(s, name) for s in shards]))
    assert tables.frame_offset.tolist() == list(range(0, 31, 3))
    assert [tables.scenes[i] for i in tables.frame_scene] == [s.scene for s in shards for _ in range(2)]
    wanted = [(number * 6 + s.pair).tolist() for number, s in enumerate(shards)]
    assert tables.pair.tolist() == [pair for pairs in wanted for pair in pairs]
    for pair, frame in zip(tables.pair, tables.pair_frame, strict=True):
        assert tables.frame_offset[frame] <= pair.min() <= pair.max() < tables.frame_offset[frame + 1]
    labels = [s.label_sets[label] for s in shards for label in s.label]
    assert [tables.label_sets[label] for label in tables.label] == labels
    assert features.fingerprint == make_plan().fingerprint


def test_the_summary_counts_planned_stored_and_skipped_rows(path: Path) -> None:
    info = store_info(path)
    assert info["planned"] == {"frames": 10, "persons": 35, "pairs": 20}
    assert info["stored"] == {"frames": 10, "persons": 30, "pairs": 20}
    assert info["skipped"] == {"box_huge": 5}
    assert info["skipped_by_kind"] == {"frame": 0, "person": 5, "pair": 0}
    assert info["complete"] is True


def test_a_store_of_no_units(tmp_path: Path) -> None:
    write_units(tmp_path / "a.store", make_plan(0))
    features = load_store(tmp_path / "a.store")
    assert features.visual.shape == (0, 8)
    assert features.tables.pair.shape == (0, 2)
    assert features.tables.frame_offset.tolist() == [0]


def test_a_shard_of_another_store_is_refused(tmp_path: Path) -> None:
    path, other = tmp_path / "one.store", tmp_path / "other.store"
    write_units(path, make_plan())
    write_units(other, replace(make_plan(), units=tuple(reversed(make_plan().units))))
    manifest, foreign = read_manifest(path), read_manifest(other)
    swapped = [replace(manifest.units[0], shard=foreign.units[0].shard), *manifest.units[1:]]
    write_manifest(path, replace(manifest, units=tuple(swapped)))
    (path / "shards" / foreign.units[0].shard).write_bytes((other / "shards" / foreign.units[0].shard).read_bytes())
    with pytest.raises(IntegrityError, match="shard of another store"):
        load_store(path)


def test_a_store_with_the_wrong_number_of_views_is_refused(path: Path) -> None:
    replace_shard(path, 1, lambda shard: replace(shard, visual_flipped=shard.visual))
    with pytest.raises(IntegrityError, match="other features than its recipe says"):
        load_store(path)
    manifest = read_manifest(path)
    write_manifest(path, replace(manifest, recipe=replace(manifest.recipe, views=2)))
    with pytest.raises(IntegrityError, match="other features than its recipe says"):
        load_store(path)


def test_a_shard_that_is_removed_while_it_is_listed_does_not_matter(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    glob = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [*glob(self, pattern), self / "removed.h5"])
    assert len(load_store(path).visual)


def test_stored_features_are_read_by_unit_and_only_from_a_folder(path: Path, tmp_path: Path) -> None:
    stored = open_stored_features(path)
    (visual,) = stored.read([3, 1])
    np.testing.assert_array_equal(visual, np.concatenate([unit_shard(3).visual, unit_shard(1).visual]))
    assert stored.starts.tolist() == [0, 6, 12, 18, 24, 30]
    pack_store(path, tmp_path / "a.h5")
    with pytest.raises(StoreError, match="packed"):
        open_stored_features(tmp_path / "a.h5")
