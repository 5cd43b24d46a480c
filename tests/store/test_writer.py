"""Stores survive kills and damage, are resumed unit by unit, and never overwrite anything else."""

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

from configs.errors import IncompleteError, IntegrityError, LockedError, MismatchError, StoreError
from store.files import sha256
from store.find import is_finished
from store.format.manifest import SceneDigest
from store.format.recipe import digest
from store.open import read_manifest
from store.reader import load_store, store_info
from store.writer import open_for_writing
from tests.jobs import store_files
from tests.stores import DAMAGE, RECIPE, UNITS, make_plan, write_units

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("after", range(UNITS + 1))
def test_a_resumed_store_equals_an_uninterrupted_one(
    tmp_path: Path, complete_files: dict[str, bytes], after: int
) -> None:
    path = tmp_path / "a.store"
    write_units(path, make_plan(), after)
    if after < UNITS:
        assert read_manifest(path).state == "building"
        with pytest.raises(IncompleteError, match="has not finished"):
            load_store(path)
    assert write_units(path, make_plan()) == UNITS - after
    assert store_files(path) == complete_files
    assert write_units(path, make_plan()) == 0


WRITER_SCRIPT = """
import sys
from pathlib import Path
from tests.stores import make_plan, write_units
print("go", flush=True)
write_units(Path(sys.argv[1]), make_plan())
"""


def test_a_store_is_resumed_after_a_kill_at_any_time(tmp_path: Path, complete_files: dict[str, bytes]) -> None:
    rng = np.random.default_rng(0)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for trial in range(6):
        path = tmp_path / f"{trial}.store"
        command = [sys.executable, "-c", WRITER_SCRIPT, str(path)]
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(float(rng.uniform(0, 0.03)))
            process.send_signal(signal.SIGKILL)
        files_after_kill = store_files(path) if (path / "STORE.json").exists() else {}
        write_units(path, make_plan())
        assert store_files(path) == complete_files
        assert {name for name in files_after_kill if name.startswith("shards")} <= set(complete_files)
        assert not list((path / ".tmp").iterdir())
        assert not (path / "quarantine").exists()


LOCK_SCRIPT = """
import sys, time
from pathlib import Path
from store.files import exclusive_lock
with exclusive_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_refused_with_exit_code_75(tmp_path: Path) -> None:
    path = tmp_path / "a.store"
    write_units(path, make_plan(), 1)
    before = store_files(path)
    with open_for_writing(path, make_plan()), pytest.raises(LockedError) as error, open_for_writing(path, make_plan()):
        pass
    assert error.value.exit_code == 75
    command = [sys.executable, "-c", LOCK_SCRIPT, str(path / ".lock")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(LockedError, match="another job"):
            write_units(path, make_plan())
        process.kill()
    assert store_files(path) == before
    assert write_units(path, make_plan()) == UNITS - 1  # the kernel released the lock of the killed process


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("written", [3, UNITS])
def test_only_the_damaged_unit_is_computed_again(
    tmp_path: Path, complete_files: dict[str, bytes], kind: str, written: int
) -> None:
    path = tmp_path / "a.store"
    write_units(path, make_plan(), written)
    shard = sorted((path / "shards").iterdir())[1]
    DAMAGE[kind](shard)
    assert not is_finished(path, make_plan())
    if written == UNITS:
        with pytest.raises(IntegrityError, match=shard.name):
            load_store(path)
    assert write_units(path, make_plan()) == UNITS - written + 1
    assert store_files(path) == complete_files
    assert (path / "quarantine").exists() == (kind != "missing")


def test_a_lost_folder_of_shards_is_computed_again(
    path: Path, tmp_path: Path, complete_files: dict[str, bytes]
) -> None:
    (path / "shards").rename(tmp_path / "elsewhere")
    assert not is_finished(path, make_plan())
    assert write_units(path, make_plan()) == UNITS
    assert store_files(path) == complete_files


def test_a_lost_manifest_is_written_again_from_the_shards(path: Path, complete_files: dict[str, bytes]) -> None:
    (path / "STORE.json").write_text("{")
    with pytest.raises(IntegrityError, match="stage2 store repair"):
        write_units(path, make_plan())
    (path / "STORE.json").unlink()
    assert write_units(path, make_plan()) == 0
    assert store_files(path) == complete_files


def test_another_recipe_is_refused_and_every_field_named(path: Path, complete_files: dict[str, bytes]) -> None:
    other = replace(make_plan(), recipe=replace(RECIPE, crop_size=64, weights_sha256="v" * 64, dtype="float32"))
    for update in (False, True):
        with pytest.raises(MismatchError) as error:
            write_units(path, other, update=update)
        for text in ("crop_size 32, not 64", "weights_sha256", "dtype float16, not float32"):
            assert text in str(error.value)
        assert "padding" not in str(error.value)
    assert store_files(path) == complete_files


def test_other_data_is_refused_by_scene_and_accepted_with_update(tmp_path: Path) -> None:
    path = tmp_path / "a.store"
    write_units(path, make_plan(4))
    more = make_plan(5)
    with pytest.raises(MismatchError, match="added scenes scene2"):
        write_units(path, more)
    changed = replace(more, scenes={**more.scenes, "scene0": SceneDigest("other", digest([]))})
    with pytest.raises(MismatchError, match="added scenes scene2; changed annotations in scene0"):
        write_units(path, changed)
    assert write_units(path, more, update=True) == 1
    assert len(load_store(path).tables.frame_name) == 10
    with pytest.raises(MismatchError, match="removed scenes scene2"):
        write_units(path, make_plan(4))
    assert write_units(path, make_plan(4), update=True, remove_missing=True) == 0
    assert len(store_files(path)) == 5  # the shard of the removed scene was deleted


def test_an_interrupted_update_leaves_the_old_store_readable(tmp_path: Path) -> None:
    path = tmp_path / "a.store"
    write_units(path, make_plan(2))
    before = load_store(path)
    write_units(path, make_plan(5), 2, update=True)
    np.testing.assert_array_equal(load_store(path).visual, before.visual)
    assert write_units(path, make_plan(5), update=True) == 1


def content(path: Path) -> Any:
    """The bytes of a file, or of every file in a folder."""
    if path.is_file():
        return path.read_bytes()
    return {str(file.relative_to(path)): file.read_bytes() if file.is_file() else None for file in path.rglob("*")}


def test_anything_but_a_store_is_refused_and_left_unchanged(tmp_path: Path) -> None:
    file, folder, other_format = tmp_path / "file", tmp_path / "folder", tmp_path / "other"
    file.write_text("mine")
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    other_format.mkdir()
    (other_format / "STORE.json").write_text('{"format": 99}')
    for path in (file, folder, other_format):
        before = content(path)
        with pytest.raises(StoreError) as error:
            write_units(path, make_plan())
        assert str(path) in str(error.value)
        assert content(path) == before
    for path in (file, folder, tmp_path / "nothing"):
        assert not is_finished(path, make_plan())
        for read in (load_store, store_info):
            with pytest.raises(StoreError, match="not a feature store"):
                read(path)


def test_a_link_inside_a_store_is_not_followed(tmp_path: Path) -> None:
    path, mine = tmp_path / "a.store", tmp_path / "mine"
    write_units(path, make_plan(), 1)
    mine.mkdir()
    (mine / "thesis.tex").write_text("mine")
    (path / ".tmp").rmdir()
    (path / ".tmp").symlink_to(mine)
    with pytest.raises(StoreError, match=r"\.tmp is a link"):
        write_units(path, make_plan())
    assert (mine / "thesis.tex").read_text() == "mine"


def test_other_files_in_a_store_are_kept_and_temporary_files_removed(
    tmp_path: Path, complete_files: dict[str, bytes]
) -> None:
    path = tmp_path / "a.store"
    write_units(path, make_plan(), 2)
    (path / "shards" / "notes.txt").write_text("x")
    (path / "notes.txt").write_text("x")
    (path / ".tmp" / f".half.h5.{'0' * 16}.tmp").write_bytes(b"half")
    write_units(path, make_plan())
    assert {name: data for name, data in store_files(path).items() if "notes" not in name} == complete_files
    assert (path / "notes.txt").exists()
    assert not list((path / ".tmp").iterdir())


def test_shards_are_named_by_their_bytes(complete_files: dict[str, bytes]) -> None:
    for name, data in complete_files.items():
        if name != "STORE.json":
            assert name.endswith(f"-{sha256(data)}.h5")
