"""An extraction uses a finished store that covers it, and reports one that is damaged beyond its repair."""

from dataclasses import replace
from pathlib import Path

import pytest

from configs.errors import IntegrityError
from store.find import find_store, is_finished
from store.format.manifest import Selection
from store.open import read_manifest
from store.pack import pack_store
from tests.stores import DAMAGE, RECIPE, UNITS, flip_bit, make_plan, write_units


@pytest.mark.parametrize(
    ("stored", "wanted", "covers"),
    [(1, 1, True), (1, 2, True), (1, 5, True), (2, 1, False), (2, 4, True), (2, 5, False), (5, 5, True)],
)
def test_a_store_covers_the_multiples_of_its_interval(tmp_path: Path, stored: int, wanted: int, covers: bool) -> None:
    path = tmp_path / "stores" / "any-name.store"
    path.parent.mkdir()
    write_units(path, make_plan(frame_interval=stored))
    plan = make_plan(frame_interval=wanted)
    assert read_manifest(path).covers(plan) == covers
    assert is_finished(path, plan) == covers
    assert (find_store(plan, tmp_path / "stores") == path) == covers


def test_a_selection_of_all_persons_covers_the_paired_ones() -> None:
    everyone, paired = Selection(1, "all"), Selection(1, "paired")
    assert everyone.covers(paired)
    assert paired.covers(paired)
    assert not paired.covers(everyone)


def test_unfinished_and_damaged_stores_are_skipped(tmp_path: Path) -> None:
    write_units(tmp_path / "a.store", make_plan(), 2)
    (tmp_path / "b.store").mkdir()
    (tmp_path / "b.store" / "STORE.json").write_bytes(b"\xff")
    (tmp_path / "c.store").write_text("x")
    write_units(tmp_path / "d.store", make_plan())
    assert find_store(make_plan(), tmp_path) == tmp_path / "d.store"
    assert find_store(replace(make_plan(), recipe=replace(RECIPE, views=2)), tmp_path).parent == tmp_path


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_that_this_extraction_cannot_repair_is_an_error(path: Path, kind: str) -> None:
    assert is_finished(path, make_plan(frame_interval=2))
    DAMAGE[kind](sorted((path / "shards").iterdir())[1])
    with pytest.raises(IntegrityError, match=rf"is damaged \(1 of {UNITS} shards\).*stage2 store repair"):
        is_finished(path, make_plan(frame_interval=2))
    assert not is_finished(path, make_plan())  # the same extraction repairs it


def test_a_damaged_packed_store_is_an_error(path: Path, tmp_path: Path) -> None:
    pack_store(path, tmp_path / "a.h5")
    flip_bit(tmp_path / "a.h5")
    with pytest.raises(IntegrityError, match="pack it again"):
        is_finished(tmp_path / "a.h5", make_plan())
