"""Outputs that exist, are not regular files or are inside inputs are refused."""

import os
from pathlib import Path

import pytest

from configs.errors import ConfigError
from store.outputs import claim_file, claim_folder


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
