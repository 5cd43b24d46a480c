"""Stores survive kills and damage, refuse what is not theirs, and give back what was written."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import IncompleteError, IntegrityError, LockedError, MismatchError, Stage2Error, StoreError
from store.files import sha256
from store.find import find_store, is_finished
from store.format.manifest import SceneDigest, Selection, write_manifest
from store.format.recipe import digest
from store.open import read_manifest
from store.pack import pack_store
from store.reader import load_store, store_info
from store.writer import StoreWriter, open_for_writing
from tests.stores import DAMAGE, RECIPE, UNITS, fill, make_plan, shard_of


def content(path: Path) -> dict[str, bytes]:
    """All that a store promises to hold."""
    files = [path / "STORE.json", *(path / "shards").iterdir()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("whole") / "a.store"
    assert fill(path, make_plan()) == UNITS
    return content(path)


@pytest.mark.parametrize("after", range(UNITS + 1))
def test_an_interrupted_store_ends_byte_by_byte_like_any_other(
    tmp_path: Path, whole: dict[str, bytes], after: int
) -> None:
    path = tmp_path / "a.store"
    fill(path, make_plan(), after)
    if after < UNITS:
        assert read_manifest(path).state == "building"
        with pytest.raises(IncompleteError, match="has not finished"):
            load_store(path)
    assert fill(path, make_plan()) == UNITS - after
    assert content(path) == whole
    assert fill(path, make_plan()) == 0


WRITER = """
import sys
from pathlib import Path
from tests.stores import fill, make_plan
print("go", flush=True)
fill(Path(sys.argv[1]), make_plan(), int(sys.argv[2]))
print("done", flush=True)
"""


def writer_process(path: Path, most: int = 10**9) -> "subprocess.Popen[str]":
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", WRITER, str(path), str(most)]
    return subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True)


def test_killed_at_random_moments_and_resumed(tmp_path: Path, whole: dict[str, bytes]) -> None:
    rng = np.random.default_rng(0)
    for trial in range(6):
        path = tmp_path / f"{trial}.store"
        with writer_process(path) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(float(rng.uniform(0, 0.03)))
            process.send_signal(signal.SIGKILL)
        acknowledged = content(path) if (path / "STORE.json").exists() else {}
        fill(path, make_plan())
        assert content(path) == whole
        assert {name for name in acknowledged if name.startswith("shards")} <= set(whole)
        assert not list((path / ".tmp").iterdir())
        assert not (path / "quarantine").exists()


def test_killed_before_there_was_a_lock(tmp_path: Path, whole: dict[str, bytes]) -> None:
    path = tmp_path / "a.store"
    (path / "shards").mkdir(parents=True)
    fill(path, make_plan())
    assert content(path) == whole


def test_a_second_writer_is_refused_with_exit_code_75(tmp_path: Path) -> None:
    path = tmp_path / "a.store"
    fill(path, make_plan(), 1)
    before = content(path)
    with open_for_writing(path, make_plan()), pytest.raises(LockedError) as error, open_for_writing(path, make_plan()):
        pass
    assert error.value.exit_code == 75
    holder = "import sys, time\nfrom pathlib import Path\nfrom store.files import exclusive_lock\n"
    holder += "with exclusive_lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)"
    command = [sys.executable, "-c", holder, str(path / ".lock")]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(LockedError, match="another job"):
            fill(path, make_plan())
        process.kill()
    assert content(path) == before
    assert fill(path, make_plan()) == UNITS - 1  # the kernel dropped the dead holder's lock


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("most", [3, UNITS])
def test_damage_is_found_and_that_unit_alone_computed_again(
    tmp_path: Path, whole: dict[str, bytes], kind: str, most: int
) -> None:
    path = tmp_path / "a.store"
    fill(path, make_plan(), most)
    shard = sorted((path / "shards").iterdir())[1]
    DAMAGE[kind](shard)
    assert not is_finished(path, make_plan())
    if most == UNITS:
        with pytest.raises(IntegrityError, match=shard.name):
            load_store(path)
    assert fill(path, make_plan()) == UNITS - most + 1
    assert content(path) == whole
    assert (path / "quarantine").exists() == (kind != "missing")


def test_a_lost_folder_of_shards_is_computed_again(tmp_path: Path, whole: dict[str, bytes]) -> None:
    path = tmp_path / "a.store"
    fill(path, make_plan())
    (path / "shards").rename(tmp_path / "elsewhere")
    assert not is_finished(path, make_plan())
    assert fill(path, make_plan()) == UNITS
    assert content(path) == whole


def test_a_lost_manifest_costs_no_unit(tmp_path: Path, whole: dict[str, bytes]) -> None:
    path = tmp_path / "a.store"
    fill(path, make_plan())
    (path / "STORE.json").write_text("{")
    with pytest.raises(IntegrityError, match="stage2 store repair"):
        fill(path, make_plan())
    (path / "STORE.json").unlink()
    assert fill(path, make_plan()) == 0
    assert content(path) == whole


def test_another_recipe_is_refused_and_every_field_named(tmp_path: Path, whole: dict[str, bytes]) -> None:
    path = tmp_path / "a.store"
    fill(path, make_plan())
    other = replace(make_plan(), recipe=replace(RECIPE, crop_size=64, weights_sha256="v" * 64, dtype="float32"))
    for update in (False, True):
        with pytest.raises(MismatchError) as error:
            fill(path, other, update=update)
        for word in ("crop_size 32, not 64", "weights_sha256", "dtype float16, not float32"):
            assert word in str(error.value)
        assert "padding" not in str(error.value)
    assert content(path) == whole


def test_other_data_is_refused_by_scene_and_taken_with_update(tmp_path: Path) -> None:
    path = tmp_path / "a.store"
    fill(path, make_plan(4))
    more = make_plan(5)
    with pytest.raises(MismatchError, match="added scenes scene2"):
        fill(path, more)
    changed = replace(more, scenes={**more.scenes, "scene0": SceneDigest("other", digest([]))})
    with pytest.raises(MismatchError, match="added scenes scene2; changed annotations in scene0"):
        fill(path, changed)
    assert fill(path, more, update=True) == 1
    assert len(load_store(path).tables.frame_name) == 10
    with pytest.raises(MismatchError, match="removed scenes scene2"):
        fill(path, make_plan(4))
    assert fill(path, make_plan(4), update=True) == 0
    assert len(content(path)) == 5  # the removed scene's shard is gone


def test_an_interrupted_update_leaves_the_old_store_readable(tmp_path: Path) -> None:
    path = tmp_path / "a.store"
    fill(path, make_plan(2))
    before = load_store(path)
    fill(path, make_plan(5), 2, update=True)
    np.testing.assert_array_equal(load_store(path).visual, before.visual)
    assert fill(path, make_plan(5), update=True) == 1


def snapshot(path: Path) -> Any:
    if path.is_file():
        return path.read_bytes()
    return {str(file.relative_to(path)): file.read_bytes() if file.is_file() else None for file in path.rglob("*")}


def test_what_is_no_store_is_refused_untouched(tmp_path: Path) -> None:
    file, folder, other = tmp_path / "file", tmp_path / "folder", tmp_path / "other"
    file.write_text("mine")
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    other.mkdir()
    (other / "STORE.json").write_text('{"format": 99}')
    for path in (file, folder, other):
        before = snapshot(path)
        with pytest.raises(StoreError) as error:
            fill(path, make_plan())
        assert str(path) in str(error.value)
        assert snapshot(path) == before
    for path in (file, folder, tmp_path / "nothing"):
        assert not is_finished(path, make_plan())
        for read in (load_store, store_info):
            with pytest.raises(StoreError, match="not a feature store"):
                read(path)


def test_a_link_inside_a_store_is_not_followed(tmp_path: Path) -> None:
    path, mine = tmp_path / "a.store", tmp_path / "mine"
    fill(path, make_plan(), 1)
    mine.mkdir()
    (mine / "thesis.tex").write_text("mine")
    (path / ".tmp").rmdir()
    (path / ".tmp").symlink_to(mine)
    with pytest.raises(StoreError, match=r"\.tmp is a link"):
        fill(path, make_plan())
    assert (mine / "thesis.tex").read_text() == "mine"


def test_stray_files_do_no_harm(tmp_path: Path, whole: dict[str, bytes]) -> None:
    path = tmp_path / "a.store"
    fill(path, make_plan(), 2)
    (path / "shards" / "notes.txt").write_text("x")
    (path / "notes.txt").write_text("x")
    (path / ".tmp" / ".half.h5.tmp").write_bytes(b"half")
    fill(path, make_plan())
    assert {name: data for name, data in content(path).items() if "notes" not in name} == whole
    assert not list((path / ".tmp").iterdir())


def test_what_is_loaded_is_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.store"
    fill(path, make_plan())
    found = load_store(path)
    shards = [shard_of(number) for number in range(UNITS)]
    tables = found.tables
    np.testing.assert_array_equal(found.visual, np.concatenate([shard.visual for shard in shards]))
    assert found.visual_flipped is None
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
    assert found.fingerprint == make_plan().fingerprint
    info = store_info(path)
    assert info["planned"] == {"frames": 10, "persons": 35, "pairs": 20}
    assert info["stored"] == {"frames": 10, "persons": 30, "pairs": 20}
    assert info["skipped"] == {"box_huge": 5}
    assert info["complete"] is True


def test_a_store_of_no_units(tmp_path: Path) -> None:
    fill(tmp_path / "a.store", make_plan(0))
    found = load_store(tmp_path / "a.store")
    assert found.visual.shape == (0, 8)
    assert found.tables.pair.shape == (0, 2)
    assert found.tables.frame_offset.tolist() == [0]


def test_a_foreign_shard_is_refused(tmp_path: Path) -> None:
    one, other = tmp_path / "one.store", tmp_path / "other.store"
    fill(one, make_plan())
    fill(other, replace(make_plan(), units=tuple(reversed(make_plan().units))))
    manifest, foreign = read_manifest(one), read_manifest(other)
    swapped = [replace(manifest.units[0], shard=foreign.units[0].shard), *manifest.units[1:]]
    write_manifest(one, replace(manifest, units=tuple(swapped)))
    (one / "shards" / foreign.units[0].shard).write_bytes((other / "shards" / foreign.units[0].shard).read_bytes())
    with pytest.raises(IntegrityError, match="shard of another store"):
        load_store(one)


@pytest.mark.parametrize(
    ("mine", "wanted", "good"),
    [(1, 1, True), (1, 2, True), (1, 5, True), (2, 1, False), (2, 4, True), (2, 5, False), (5, 5, True)],
)
def test_a_store_serves_the_multiples_of_its_interval(tmp_path: Path, mine: int, wanted: int, good: bool) -> None:
    path = tmp_path / "stores" / "any-name.store"
    path.parent.mkdir()
    fill(path, make_plan(frame_interval=mine))
    plan = make_plan(frame_interval=wanted)
    assert read_manifest(path).covers(plan) == good
    assert is_finished(path, plan) == good
    assert (find_store(plan, tmp_path / "stores") == path) == good


def test_selections_of_persons() -> None:
    everyone, paired = Selection(1, "all"), Selection(1, "paired")
    assert everyone.covers(paired)
    assert paired.covers(paired)
    assert not paired.covers(everyone)


def test_an_unfinished_or_damaged_neighbour_is_passed_over(tmp_path: Path) -> None:
    fill(tmp_path / "a.store", make_plan(), 2)
    (tmp_path / "b.store").mkdir()
    (tmp_path / "b.store" / "STORE.json").write_bytes(b"\xff")
    (tmp_path / "c.store").write_text("x")
    fill(tmp_path / "d.store", make_plan())
    assert find_store(make_plan(), tmp_path) == tmp_path / "d.store"
    assert find_store(replace(make_plan(), recipe=replace(RECIPE, views=2)), tmp_path).parent == tmp_path


def paths_of(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(path for key, item in inner for path in paths_of(item, (*here, key)))]


HOSTILE = st.sampled_from(
    [
        *(None, True, -1, 0, 2**70, 1.5, float("nan"), "", "x", "../../etc/passwd", "/etc/passwd", "a\0b", "\ud800"),
        *([], {}, [[]], {"a": {"b": "c"}}, {"a": 3}, "u00000000-" + "0" * 64 + ".h5"),
    ]
)


@given(where=st.integers(0, 10**6), value=HOSTILE, sign=st.booleans())
def test_a_hostile_manifest_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, whole: dict[str, bytes], where: int, value: Any, sign: bool
) -> None:
    values = json.loads(whole["STORE.json"])
    places = paths_of(values)[1:]
    *way, last = places[where % len(places)]
    inner = values
    for key in way:
        inner = inner[key]
    inner[last] = value
    path = tmp_path_factory.mktemp("hostile")
    if sign:  # as somebody would who knows the fingerprint's rule
        try:
            scenes = {"recipe": values["recipe"], "selection": values["selection"], "scenes": values["scenes"]}
            values |= {"fingerprint": digest(scenes), "plan": digest([unit["digest"] for unit in values["units"]])}
            values |= {"checksum": digest({key: item for key, item in values.items() if key != "checksum"})}
        except (ValueError, TypeError, KeyError):
            pass
    (path / "STORE.json").write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
    for call in (store_info, load_store, lambda store: is_finished(store, make_plan()), lambda s: fill(s, make_plan())):
        try:
            call(path)
        except Stage2Error as error:
            str(error).encode()


@given(st.binary(max_size=200))
def test_any_bytes_as_manifest_are_refused(tmp_path: Path, junk: bytes) -> None:
    for data in (junk, b'{"format": 1, ' + junk, b"[" * 100_000):
        (tmp_path / "STORE.json").write_bytes(data)
        with pytest.raises(IntegrityError):
            read_manifest(tmp_path)


def test_the_fingerprint_covers_recipe_selection_and_data_only() -> None:
    plan = make_plan()
    assert replace(plan, units=(), weights="elsewhere", state="complete").fingerprint == plan.fingerprint
    others = [
        replace(plan, recipe=replace(RECIPE, padding=0.3)),
        replace(plan, selection=Selection(2, "all")),
        replace(plan, scenes={**plan.scenes, "scene0": SceneDigest("a", "b")}),
    ]
    assert len({plan.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_features_can_be_taken_over_where_pairs_alone_have_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.store"
    fill(path, make_plan())
    plan = make_plan()
    changed = replace(plan.units[0], digest=digest("new pairs"))
    plan = replace(
        plan, units=(changed, *plan.units[1:]), scenes={**plan.scenes, "scene0": SceneDigest("x", digest([]))}
    )
    with open_for_writing(path, plan, update=True) as writer:
        assert isinstance(writer, StoreWriter)
        assert writer.pending == [0]
        old = writer.features_of(changed)
        assert old is not None
        np.testing.assert_array_equal(old.visual, shard_of(0).visual)
        assert writer.features_of(replace(changed, visual_digest="another")) is None


def test_shards_are_named_by_their_bytes(whole: dict[str, bytes]) -> None:
    for name, data in whole.items():
        if name != "STORE.json":
            assert name.endswith(f"-{sha256(data)}.h5")


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_store_that_holds_more_than_is_asked_for_is_said_to_be_damaged(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.store"
    fill(path, make_plan())
    assert is_finished(path, make_plan(frame_interval=2))
    DAMAGE[kind](sorted((path / "shards").iterdir())[1])
    with pytest.raises(IntegrityError, match=rf"is damaged \(1 of {UNITS} shards\).*stage2 store repair"):
        is_finished(path, make_plan(frame_interval=2))
    assert not is_finished(path, make_plan())  # which an extraction mends


def test_a_damaged_packed_store_is_said_to_be_damaged(tmp_path: Path) -> None:
    fill(tmp_path / "a.store", make_plan())
    pack_store(tmp_path / "a.store", tmp_path / "a.h5")
    image = bytearray((tmp_path / "a.h5").read_bytes())
    image[-1] ^= 1
    (tmp_path / "a.h5").write_bytes(image)
    with pytest.raises(IntegrityError, match="pack it again"):
        is_finished(tmp_path / "a.h5", make_plan())


def test_a_shard_that_a_writer_removes_while_a_reader_counts_is_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "s", make_plan())
    listed = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [*listed(self, pattern), self / "removed.h5"])
    assert len(load_store(tmp_path / "s").visual)
