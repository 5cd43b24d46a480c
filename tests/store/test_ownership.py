"""A folder is changed only if a marker in it says that stage2 made it, whatever the names of its files are."""

from pathlib import Path

import pytest

from configs.errors import LockedError, StorageError, StoreError
from store.ownership import RUN, STORE, is_marked, is_unused, own_folder
from store.writer import open_for_writing
from tests.jobs import fill_disk, store_files
from tests.stores import UNITS, make_plan, write_units


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("lock", [b"", b"4711", b"stage2 run, format 1\n"])
@pytest.mark.parametrize("name", [".tmp/thesis.tex", "shards/umbrella.h5", "STORE.txt", ".images.json"])
def test_w6_a_folder_with_the_names_of_a_store_is_refused_and_unchanged(tmp_path: Path, name: str, lock: bytes) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    (tmp_path / ".lock").write_bytes(lock)
    before = content(tmp_path)
    with pytest.raises(StoreError, match="not a feature store"):
        write_units(tmp_path, make_plan())
    assert content(tmp_path) == before


def test_w6_foreign_files_in_the_folders_of_a_store_are_kept(tmp_path: Path, complete_files: dict[str, bytes]) -> None:
    path = tmp_path / "a.store"
    write_units(path, make_plan(), 2)
    foreign = (".tmp/thesis.tex", ".tmp/notes.tmp", "shards/umbrella.h5", "shards/u1.h5")
    for name in foreign:
        (path / name).write_text("mine")
    (path / ".tmp" / f".folder.{'0' * 16}.tmp").mkdir()
    write_units(path, make_plan())
    assert all((path / name).read_text() == "mine" for name in foreign)
    assert not (path / "quarantine").exists()
    assert {name: data for name, data in store_files(path).items() if name not in foreign} == complete_files


@pytest.mark.parametrize("left", ["", "folder", "lock", "half", "marker", "folders"])
def test_w6_an_extraction_killed_at_its_start_is_resumed(
    tmp_path: Path, complete_files: dict[str, bytes], left: str
) -> None:
    path = tmp_path / "a.store"
    with open_for_writing(path, make_plan()):
        text = (path / ".lock").read_bytes()
    states: dict[str, list[str]] = {"folder": [], "lock": [".lock"], "half": [".lock"], "marker": [".lock"]}
    states["folders"] = [".lock", ".tmp", "shards"]
    if left:
        for entry in sorted(path.iterdir()):
            if entry.name not in states[left]:
                entry.rmdir() if entry.is_dir() else entry.unlink()
    if left in ("lock", "half"):
        (path / ".lock").write_bytes(text[: 9 * (left == "half")])
    assert write_units(path, make_plan()) == UNITS
    assert store_files(path) == complete_files


def test_w6_a_store_without_marker_is_recognised_by_its_manifest(
    tmp_path: Path, complete_files: dict[str, bytes]
) -> None:
    path = tmp_path / "a.store"
    write_units(path, make_plan(), 2)
    (path / ".lock").write_bytes(b"")  # as earlier versions wrote it
    assert write_units(path, make_plan()) == UNITS - 2
    (path / ".lock").unlink()
    (path / "STORE.json").unlink()
    with pytest.raises(StoreError, match="store repair"):
        write_units(path, make_plan())
    assert {path.name for path in (path / "shards").iterdir()} == {name[7:] for name in complete_files if "/" in name}


def test_the_marker_names_the_kind_and_is_a_lock(tmp_path: Path) -> None:
    marker = tmp_path / "run" / ".stage2-run"
    assert is_unused(marker, RUN)
    with own_folder(marker, RUN):
        assert is_marked(marker, RUN) and not is_marked(marker, STORE) and not is_unused(marker, RUN)
        with pytest.raises(LockedError), own_folder(marker, RUN):
            pass
    assert marker.read_text() == "stage2 run, format 1\n"


def test_a_foreign_file_in_place_of_the_marker_is_not_changed(tmp_path: Path) -> None:
    marker = tmp_path / ".stage2-run"
    marker.write_text("mine")
    assert not is_marked(marker, RUN) and not is_unused(marker, RUN)
    with own_folder(marker, RUN):
        pass
    assert marker.read_text() == "mine"
    marker.unlink()
    (tmp_path / "target").touch()
    marker.symlink_to(tmp_path / "target")
    assert not is_unused(marker, RUN)
    with pytest.raises(StorageError), own_folder(marker, RUN):
        pass
    assert (tmp_path / "target").read_bytes() == b""


def test_a_file_in_place_of_the_folder_is_not_unused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    assert not is_unused(tmp_path / "file" / "marker", RUN)
    assert not is_unused(tmp_path / "broken" / "marker", RUN)


@pytest.mark.parametrize("room", [0, 1, 7])
def test_a_disk_that_fills_up_during_the_marker_leaves_an_unused_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    marker = tmp_path / "a.store" / ".lock"
    with monkeypatch.context() as patch, pytest.raises(StorageError, match="No space left"):
        fill_disk(patch, room)
        with open_for_writing(marker.parent, make_plan()):
            pass
    assert is_unused(marker, STORE)
    write_units(marker.parent, make_plan())
    assert is_marked(marker, STORE)
