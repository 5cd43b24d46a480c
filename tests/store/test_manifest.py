"""STORE.json identifies a store, and one from elsewhere is either valid or refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import IntegrityError, Stage2Error
from store.find import is_finished
from store.format.manifest import SceneDigest, Selection
from store.format.recipe import digest
from store.open import read_manifest
from store.reader import load_store, store_info
from tests.stores import RECIPE, make_plan, write_units


def test_the_fingerprint_covers_only_recipe_selection_and_data() -> None:
    plan = make_plan()
    assert replace(plan, units=(), weights="elsewhere", state="complete").fingerprint == plan.fingerprint
    others = [
        replace(plan, recipe=replace(RECIPE, padding=0.3)),
        replace(plan, selection=Selection(2, "all")),
        replace(plan, scenes={**plan.scenes, "scene0": SceneDigest("a", "b")}),
    ]
    assert len({plan.fingerprint, *(other.fingerprint for other in others)}) == 4


def key_paths(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The keys that lead to each value in nested dicts and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [prefix, *(path for key, item in inner for path in key_paths(item, (*prefix, key)))]


HOSTILE = st.sampled_from(
    [
        *(None, True, -1, 0, 2**70, 1.5, float("nan"), "", "x", "../../etc/passwd", "/etc/passwd", "a\0b", "\ud800"),
        *([], {}, [[]], {"a": {"b": "c"}}, {"a": 3}, "u00000000-" + "0" * 64 + ".h5"),
    ]
)


@given(position=st.integers(0, 10**6), value=HOSTILE, sign=st.booleans())
def test_a_hostile_manifest_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    complete_files: dict[str, bytes],
    position: int,
    value: Any,
    sign: bool,
) -> None:
    values = json.loads(complete_files["STORE.json"])
    paths = key_paths(values)[1:]
    *keys, last = paths[position % len(paths)]
    inner = values
    for key in keys:
        inner = inner[key]
    inner[last] = value
    path = tmp_path_factory.mktemp("hostile")
    if sign:  # with valid checksums, as an attacker would
        try:
            scenes = {"recipe": values["recipe"], "selection": values["selection"], "scenes": values["scenes"]}
            values |= {"fingerprint": digest(scenes), "plan": digest([unit["digest"] for unit in values["units"]])}
            values |= {"checksum": digest({key: item for key, item in values.items() if key != "checksum"})}
        except (ValueError, TypeError, KeyError):
            pass
    (path / "STORE.json").write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
    plan = make_plan()
    for call in (
        store_info,
        load_store,
        lambda store: is_finished(store, plan),
        lambda store: write_units(store, plan),
    ):
        try:
            call(path)
        except Stage2Error as error:
            str(error).encode()


def test_a_complete_store_names_the_shard_of_each_unit(tmp_path: Path, complete_files: dict[str, bytes]) -> None:
    values = json.loads(complete_files["STORE.json"])
    values["units"][0]["shard"] = ""
    values["checksum"] = digest({key: item for key, item in values.items() if key != "checksum"})
    (tmp_path / "STORE.json").write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
    with pytest.raises(IntegrityError, match="shard name ''"):
        read_manifest(tmp_path)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(tmp_path: Path, junk: bytes) -> None:
    for data in (junk, b'{"format": 1, ' + junk, b"[" * 100_000):
        (tmp_path / "STORE.json").write_bytes(data)
        with pytest.raises(IntegrityError):
            read_manifest(tmp_path)
