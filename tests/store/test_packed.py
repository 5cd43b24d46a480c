"""A packed store equals its folder, can be used in its place, and reveals all damage."""

import json
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np
import pytest

import store.pack
from configs.errors import IncompleteError, IntegrityError, StoreError
from store.checks.verify import verify
from store.files import Bytes
from store.find import find_store, is_finished
from store.format.packed import Shards, insert_features
from store.format.packed_header import make_header
from store.format.shard import Shard
from store.open import read_manifest
from store.pack import pack_store
from store.reader import load_store, store_info
from store.writer import open_for_writing
from tests.stores import make_plan, unit_shard, write_units


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_units(tmp_path / "a.store", make_plan())
    return tmp_path / "a.store"


@pytest.fixture
def packed(folder: Path, tmp_path: Path) -> Path:
    assert pack_store(folder, tmp_path / "a.h5") == (tmp_path / "a.h5").stat().st_size
    return tmp_path / "a.h5"


def test_it_has_the_rows_of_the_folder(folder: Path, packed: Path) -> None:
    one, other = load_store(folder), load_store(packed)
    np.testing.assert_array_equal(one.visual, other.visual)
    for name, value in vars(one.tables).items():
        again = getattr(other.tables, name)
        assert np.array_equal(value, again) if isinstance(value, np.ndarray) else value == again, name
    assert one.fingerprint == other.fingerprint
    assert read_manifest(folder) == read_manifest(packed)
    assert store_info(folder) | {"path": ""} == store_info(packed) | {"path": ""}
    assert verify(packed).to_dict()["faults"] == []


def test_h5py_reads_it_without_this_package(folder: Path, packed: Path) -> None:
    tables = load_store(folder).tables
    with h5py.File(packed, "r") as file:
        np.testing.assert_array_equal(file["visual"][:], load_store(folder).visual)
        np.testing.assert_array_equal(file["pair"][:], tables.pair)
        assert [scene.decode() for scene in file["frame_scene"]] == [tables.scenes[i] for i in tables.frame_scene]
        sets = [tuple(json.loads(labels)) for labels in file["label_sets"]]
        assert [sets[i] for i in file["label"]] == [tables.label_sets[i] for i in tables.label]


def test_extraction_uses_it_in_place_of_the_folder(packed: Path, tmp_path: Path) -> None:
    assert is_finished(packed, make_plan())
    assert is_finished(packed, make_plan(frame_interval=2))
    (tmp_path / "stores").mkdir()
    packed.rename(tmp_path / "stores" / "any.h5")
    assert find_store(make_plan(), tmp_path / "stores") == tmp_path / "stores" / "any.h5"


def test_it_is_never_modified(packed: Path) -> None:
    before = packed.read_bytes()
    with pytest.raises(StoreError, match="file"), open_for_writing(packed, make_plan(3)):
        pass
    assert packed.read_bytes() == before


def test_the_same_store_packs_to_the_same_bytes(folder: Path, packed: Path, tmp_path: Path) -> None:
    pack_store(folder, tmp_path / "b.h5")
    pack_store(packed, tmp_path / "c.h5")
    assert packed.read_bytes() == (tmp_path / "b.h5").read_bytes() == (tmp_path / "c.h5").read_bytes()


def test_two_views_and_no_units(tmp_path: Path) -> None:
    plan = make_plan(2)
    plan = replace(plan, recipe=replace(plan.recipe, views=2))
    with open_for_writing(tmp_path / "two.store", plan) as writer:
        for number in writer.pending:
            shard = unit_shard(number)
            writer.commit(number, replace(shard, visual_flipped=shard.visual[:, ::-1].copy()))
        writer.finish()
    write_units(tmp_path / "none.store", make_plan(0))
    for name in ("two", "none"):
        pack_store(tmp_path / f"{name}.store", tmp_path / f"{name}.h5")
        one, other = load_store(tmp_path / f"{name}.store"), load_store(tmp_path / f"{name}.h5")
        for array in ("visual", "visual_flipped"):
            np.testing.assert_array_equal(getattr(one, array), getattr(other, array))


def test_flipped_bits_and_truncation_are_detected(packed: Path) -> None:
    data = packed.read_bytes()
    rng = np.random.default_rng(0)
    offsets = [0, 30, 40, 120, 500, 8000, len(data) - 1, *rng.integers(0, len(data), 150).tolist()]
    for at in offsets:
        flipped = bytearray(data)
        flipped[at] ^= 1 << int(rng.integers(8))
        for damaged in (flipped, data[:at]):
            packed.write_bytes(damaged)
            with pytest.raises(StoreError):
                load_store(packed)
            with pytest.raises(StoreError):  # not False: extraction cannot repair a packed file
                if not is_finished(packed, make_plan()):
                    raise StoreError("its first line is damaged, so it does not look like a store")
            with suppress(StoreError):  # its header is damaged
                assert verify(packed).faults


def test_an_invalid_header_size_is_refused(packed: Path) -> None:
    data = packed.read_bytes()
    for size in (0, 1, 96, 97, 511, 513, 2**26, 99_999_999):
        packed.write_bytes(data[:22] + f"{size:08d}".encode() + data[30:])
        with pytest.raises(IntegrityError):
            read_manifest(packed)


def test_rows_that_contradict_the_header_are_refused(packed: Path, folder: Path) -> None:
    write_units(folder.parent / "less.store", make_plan(3))
    pack_store(folder.parent / "less.store", folder.parent / "less.h5")
    body = (folder.parent / "less.h5").read_bytes()
    with h5py.File(folder.parent / "less.h5", "r") as file:
        size = file.userblock_size
    packed.write_bytes(make_header((folder / "STORE.json").read_bytes(), [body[size:]]) + body[size:])
    with pytest.raises(IntegrityError, match="other rows"):
        load_store(packed)


def test_an_unfinished_or_damaged_store_is_not_packed(tmp_path: Path) -> None:
    write_units(tmp_path / "a.store", make_plan(), 2)
    with pytest.raises(IncompleteError):
        pack_store(tmp_path / "a.store", tmp_path / "a.h5")
    write_units(tmp_path / "a.store", make_plan())
    next((tmp_path / "a.store" / "shards").iterdir()).write_bytes(b"x")
    with pytest.raises(IntegrityError):
        pack_store(tmp_path / "a.store", tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()


def test_a_file_that_differs_from_the_shards_is_not_published(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def insert_wrong_features(content: BinaryIO, shards: Shards) -> Iterator[Bytes]:
        def negate_a_value(shard: Shard) -> Shard:
            visual = shard.visual.copy()
            visual[3, 3] = -visual[3, 3]
            return replace(shard, visual=visual)

        return insert_features(content, lambda: (negate_a_value(shard) for shard in shards()))

    monkeypatch.setattr(store.pack, "insert_features", insert_wrong_features)
    with pytest.raises(IntegrityError, match="packing changed rows"):
        pack_store(folder, tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()


def test_a_folder_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder"):
        pack_store(folder, tmp_path)


@pytest.mark.parametrize("views", [1, 2])
def test_memory_does_not_grow_with_the_features(tmp_path: Path, views: int) -> None:
    def peak(units: int) -> int:
        path, rng = tmp_path / f"{units}.store", np.random.default_rng(0)
        plan = make_plan(units)
        with open_for_writing(
            path, replace(plan, recipe=replace(plan.recipe, views=views, visual_dim=20_000))
        ) as writer:
            for number in writer.pending:
                shard = unit_shard(number)
                visual = rng.standard_normal((len(shard.box), 20_000)).astype(np.float16)
                flipped = visual[:, ::-1].copy() if views == 2 else None
                writer.commit(number, replace(shard, visual=visual, visual_flipped=flipped))
            writer.finish()
        tracemalloc.start()
        pack_store(path, tmp_path / f"{units}.h5")
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        np.testing.assert_array_equal(load_store(path).visual, load_store(tmp_path / f"{units}.h5").visual)
        return result

    small, large = peak(3), peak(24)
    assert large < 1.3 * small  # for eight times the features
