"""Outputs that exist, are not regular files or are inside inputs are refused."""

import os
from pathlib import Path

import pytest

from configs.errors import ConfigError
from store.outputs import claim_file, claim_folder
from store.ownership import RUN, STORE, own_folder


def test_w1_an_existing_file_needs_overwrite(tmp_path: Path) -> None:
    claim_file(tmp_path / "new.json", overwrite=False)
    (tmp_path / "old.json").touch()
    with pytest.raises(ConfigError, match="--overwrite"):
        claim_file(tmp_path / "old.json", overwrite=False)
    claim_file(tmp_path / "old.json", overwrite=True)


@pytest.mark.parametrize(("kind", "message"), [("link", "a link"), ("fifo", "a pipe"), ("folder", "a folder")])
def test_w1_anything_but_a_regular_file_is_refused_also_with_overwrite(tmp_path: Path, kind: str, message: str) -> None:
    path = tmp_path / "out"
    if kind == "link":
        (tmp_path / "target").touch()
        path.symlink_to(tmp_path / "target")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(ConfigError, match=message):
        claim_file(path, overwrite=True)


def test_w2_an_output_inside_an_input_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "labels").mkdir(parents=True)
    (tmp_path / "link").symlink_to(data)
    for path in (data / "labels" / "a.json", tmp_path / "link" / "a.json", data):
        with pytest.raises(ConfigError, match="input"):
            claim_file(path, overwrite=True, inputs=(data,))
    for path in (data / "images", data):
        with pytest.raises(ConfigError, match="input"):
            claim_folder(path, inputs=(data,))
    claim_file(tmp_path / "a.json", overwrite=False, inputs=(data,))


def test_w2_a_folder_with_files_needs_overwrite(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    claim_folder(folder, overwrite=False)
    folder.mkdir()
    claim_folder(folder, overwrite=False)
    (folder / "mine.jpg").touch()
    with pytest.raises(ConfigError, match="--overwrite"):
        claim_folder(folder, overwrite=False)
    claim_folder(folder)
    with pytest.raises(ConfigError, match="not a folder"):
        claim_folder(folder / "mine.jpg")


def mark(folder: Path, kind: str) -> None:
    name = ".lock" if kind == STORE else f".stage2-{kind}"
    with own_folder(folder / name, kind):
        pass


@pytest.mark.parametrize("name", ["STORE.json", ".lock", "shards/u.h5", "new/file.json"])
def test_w1_no_output_is_inside_a_store(tmp_path: Path, name: str) -> None:
    mark(tmp_path / "a.store", STORE)
    (tmp_path / "old.store").mkdir()
    (tmp_path / "old.store" / "STORE.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "a.store")
    for folder in ("a.store", "old.store", "link"):
        for overwrite in (False, True):
            with pytest.raises(ConfigError, match="inside the feature store"):
                claim_file(tmp_path / folder / name, overwrite=overwrite)
        with pytest.raises(ConfigError, match="inside the feature store"):
            claim_folder(tmp_path / folder / name)
    with pytest.raises(ConfigError, match="inside the feature store"):
        claim_folder(tmp_path / "a.store")


def test_w1_no_output_is_among_the_files_of_another_run(tmp_path: Path) -> None:
    for run in ("r", "r/seed-1", "other"):
        mark(tmp_path / run, RUN)
    inputs = [tmp_path / "r" / "best_model.pth"]
    for name in ("other/best_model.pth", "other/new.json", "other/x/new.json", "r/seed-1/best_model.pth"):
        with pytest.raises(ConfigError, match="inside the run folder"):
            claim_file(tmp_path / name, overwrite=True, inputs=inputs)
    for name in ("r/.stage2-run", "r/.stage2-new/best_model.pth"):
        with pytest.raises(ConfigError, match="uses for its own files"):
            claim_file(tmp_path / name, overwrite=True, inputs=inputs)
    for name in ("r/report.html", "r/pictures/new.json", "new.json"):
        claim_file(tmp_path / name, overwrite=False, inputs=inputs)
