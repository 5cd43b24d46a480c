"""A --data_path of the wrong level is recognised, and the right folder is named."""

from pathlib import Path

import pytest

from configs.errors import DataError
from extract.annotations.jrdb import IMAGES, LABELS, scene_names
from tests.jrdb_folder import write_folder, write_labels


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


def test_a_folder_two_levels_above_the_data_is_recognised(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "jrdb" / "v1", ("cafe",), frames=1, people=2)
    assert message_for(tmp_path).endswith(f"give --data_path {data}")


def test_many_data_folders_are_not_all_listed(tmp_path: Path) -> None:
    for number in range(9):
        write_labels(tmp_path / f"data{number}", "cafe", {})
    message = message_for(tmp_path)
    assert f"{tmp_path / 'data3'} and 5 more" in message and "data4" not in message


@pytest.mark.parametrize(
    ("files", "missing", "there"),
    [
        (["images/a.jpg"], "/data has no folder labels/", "it contains images"),
        (["Labels/x.json", "images/a.jpg"], "/data has no folder labels/", "it contains Labels, images"),
        (["labels/cafe.json"], f"/data/labels has no folder {LABELS.name}/", "it contains cafe.json"),
        (["labels/labels_2d/cafe.json"], f"/data/labels has no folder {LABELS.name}/", "it contains labels_2d"),
    ],
)
def test_what_is_there_in_place_of_the_annotations_is_named(
    tmp_path: Path, files: list[str], missing: str, there: str
) -> None:
    for name in files:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    message = message_for(tmp_path / "data")
    assert missing in message
    assert f"{there}; check --data_path" in message


def test_other_folders_are_named_with_what_is_expected(tmp_path: Path) -> None:
    assert message_for(tmp_path / "missing").endswith("does not exist; check --data_path")
    (tmp_path / "dataset").mkdir()
    assert message_for(tmp_path / "datset").endswith(f"did you mean {tmp_path / 'dataset'}?")
    message = message_for(tmp_path / "dataset")
    assert str(tmp_path / "dataset" / LABELS) in message and "images/ and labels/" in message
    (tmp_path / "dataset" / LABELS).mkdir(parents=True)
    assert message_for(tmp_path / "dataset").count("/labels") == 2  # nothing is missing but the files
