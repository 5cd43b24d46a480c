"""A --data_path of the wrong level is recognised, and the right folder is named."""

from pathlib import Path

import pytest

from configs.errors import DataError
from extract.annotations.jrdb import IMAGES, LABELS, scene_names
from tests.jrdb_folder import write_folder


def message_for(data_path: Path) -> str:
    with pytest.raises(DataError) as refused:
        scene_names(data_path)
    return str(refused.value)


@pytest.mark.parametrize("below", [IMAGES, IMAGES.parent, LABELS, LABELS.parent, IMAGES / "cafe"])
def test_a_folder_inside_the_data_is_recognised(tmp_path: Path, below: Path) -> None:
    data = write_folder(tmp_path / "data", ("cafe",), frames=1, people=2)
    assert message_for(data / below).endswith(f"give --data_path {data}")


def test_a_folder_above_the_data_is_recognised(tmp_path: Path) -> None:
    one = write_folder(tmp_path / "one", ("cafe",), frames=1, people=2)
    assert message_for(tmp_path).endswith(f"give --data_path {one}")
    two = write_folder(tmp_path / "two", ("cafe",), frames=1, people=2)
    assert f"choose one of {one}, {two}" in message_for(tmp_path)


def test_other_folders_are_named_with_what_is_expected(tmp_path: Path) -> None:
    assert "does not exist" in message_for(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    message = message_for(tmp_path / "empty")
    assert str(tmp_path / "empty" / LABELS) in message and "images/ and labels/" in message
