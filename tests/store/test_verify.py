"""Verification reports every kind of fault with its place, and none for a sound store."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cli
import store.checks.verify
from configs.errors import IntegrityError, StoreError
from store.checks.verify import verify
from store.format.manifest import manifest_text
from store.format.shard import Shard
from store.format.shard_file import read_shard
from store.open import read_manifest
from tests.stores import DAMAGE, UNITS, make_plan, replace_shard, shard_path, unit_shard, with_row, write_units


def fault_kinds(path: Path) -> set[str]:
    """The kinds of all faults of a store."""
    return {fault.kind for fault in verify(path).faults}


def test_a_sound_store_has_no_fault(path: Path) -> None:
    report = verify(path).to_dict()
    assert report["sound"] is True
    assert (report["units"], report["persons"], report["faults"]) == (UNITS, 6 * UNITS, [])


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_reported_with_its_unit(path: Path, kind: str) -> None:
    file = shard_path(path, 2)
    DAMAGE[kind](file)
    report = verify(path)
    assert report.bad_units == {2}
    fault = report.faults[0]
    assert fault.kind == ("missing_shard" if kind in {"missing", "renamed"} else "damaged_shard")
    assert file.name in fault.message
    assert fault.scene == "scene1"


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (with_row(np.nan, slice(3, 4)), "not_finite_visual"),
        (with_row(np.inf, slice(0, 1)), "not_finite_visual"),
        (with_row(0.0), "zero_visual"),
        (with_row(-0.0), "zero_visual"),
        (with_row(2.5), "constant_visual"),
    ],
)
def test_bad_rows_are_reported_with_frame_and_person(path: Path, change: Callable[[Shard], Shard], kind: str) -> None:
    replace_shard(path, 1, change)
    report = verify(path)
    assert [fault.kind for fault in report.faults] == [kind]
    person = unit_shard(1).person_id[4]
    assert vars(report.faults[0]) | {"message": ""} == {
        "kind": kind, "message": "", "unit": 1, "scene": "scene0", "frame": "000001é.jpg", "person": str(person),
    }  # fmt: skip


def test_float32_rows_are_checked_too(path: Path) -> None:
    replace_shard(path, 1, with_row(np.nan, slice(3, 4), "float32"))
    assert fault_kinds(path) == {"not_finite_visual", "wrong_type"}


@pytest.mark.parametrize(
    ("change", "unit", "kind"),
    [
        (lambda s: replace(s, skipped=()), {}, "wrong_count"),
        (lambda s: s, {"stored_persons": 5}, "wrong_count"),
        (lambda s: s, {"zeros": 1}, "wrong_count"),
        (lambda s: s, {"bytes": 7}, "wrong_count"),
        (lambda s: s, {"persons": 8}, "wrong_count"),
        (lambda s: s, {"skipped": {}}, "wrong_count"),
        (lambda s: replace(s, attributes=s.attributes | {"recipe": "other"}), {}, "wrong_recipe"),
        (lambda s: replace(s, attributes=s.attributes | {"digest": "other"}), {}, "wrong_digest"),
        (lambda s: replace(s, scene="elsewhere"), {}, "wrong_scene"),
        (lambda s: replace(s, visual_flipped=s.visual), {}, "wrong_views"),
        (lambda s: replace(s, visual=s.visual[:, :4].copy()), {}, "wrong_type"),
        (lambda s: replace(s, box=s.box * [1, 1, 0, 1]), {}, "bad_box"),
        (lambda s: replace(s, spatial=s.spatial * np.float32("nan")), {}, "not_finite_spatial"),
    ],
)
def test_contradictions_to_plan_or_recipe_are_reported(
    path: Path, change: Callable[[Shard], Shard], unit: dict[str, Any], kind: str
) -> None:
    replace_shard(path, 3, change, **unit)
    report = verify(path)
    assert kind in {fault.kind for fault in report.faults}
    assert report.bad_units == {3}


def test_left_over_shards_and_a_wrong_skipped_list_are_reported(path: Path) -> None:
    (path / "skipped.jsonl").write_text("")
    assert fault_kinds(path) == {"wrong_skipped"}
    (path / "shards" / f"u00000009-{'0' * 64}.h5").write_bytes(b"x")
    assert fault_kinds(path) == {"wrong_skipped", "stray_shard"}
    assert verify(path).bad_units == set()
    write_units(path, make_plan())
    assert fault_kinds(path) == set()


def test_an_unfinished_store_is_a_fault(tmp_path: Path) -> None:
    write_units(tmp_path / "a.store", make_plan(), 2)
    assert fault_kinds(tmp_path / "a.store") == {"unfinished"}
    DAMAGE["flipped"](next((tmp_path / "a.store" / "shards").iterdir()))
    assert fault_kinds(tmp_path / "a.store") == {"unfinished", "damaged_shard"}


def test_a_missing_store_or_a_damaged_manifest_is_an_error(tmp_path: Path, path: Path) -> None:
    with pytest.raises(StoreError, match="not a feature store"):
        verify(tmp_path / "none")
    text = manifest_text(read_manifest(path))
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(text), 200):
        flipped = bytearray(text)
        flipped[at] ^= 1 << rng.integers(8)
        (path / "STORE.json").write_bytes(flipped)
        with pytest.raises(IntegrityError):
            verify(path)


def test_the_command(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for code, sound in ((0, True), (4, False)):
        with pytest.raises(SystemExit) as stop:
            cli.main(["store", "verify", str(path), "--json"])
        assert stop.value.code or code == 0
        assert json.loads(capsys.readouterr().out)["sound"] is sound
        with pytest.raises(SystemExit):
            cli.main(["store", "verify", str(path)])
        assert ("is sound" if sound else "damaged_shard") in capsys.readouterr().out
        DAMAGE["flipped"](shard_path(path, 0))


def test_skipped_items_are_listed_in_skipped_jsonl(path: Path) -> None:
    lines = [json.loads(line) for line in (path / "skipped.jsonl").read_text().splitlines()]
    stored = ("kind", "scene", "frame", "item", "reason")
    items = [item for number in range(UNITS) for item in unit_shard(number).skipped]
    assert lines == [{name: getattr(item, name) for name in stored} for item in items]


def test_a_shard_that_an_update_removes_during_verification_is_missing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_and_remove(file: Path) -> Shard:
        shard = read_shard(file)
        if file.name.startswith("u00000002"):
            file.unlink()
        return shard

    monkeypatch.setattr(store.checks.verify, "read_shard", read_and_remove)
    assert [(fault.kind, fault.unit) for fault in verify(path).faults] == [("missing_shard", 2)]
