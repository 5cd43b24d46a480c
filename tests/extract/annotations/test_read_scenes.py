"""Which scenes are read, and what the log says of scenes, images and objects that are ignored."""

from pathlib import Path

import pytest

from configs.errors import DataError
from extract.annotations.jrdb import IMAGES, LABELS, read_scenes
from tests.jrdb_folder import person, write_folder, write_image, write_labels


def test_images_without_annotations_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path, frames=1)
    write_image(tmp_path, "cafe", "000009.jpg")
    write_image(tmp_path, "attic", "000000.jpg")
    (tmp_path / IMAGES / "cafe" / "notes.txt").write_text("x")
    with caplog.at_level("INFO", "stage2"):
        scenes = read_scenes(tmp_path)
    assert [scene.unannotated for scene in scenes] == [["000009.jpg"], []]
    assert "attic" in caplog.text
    assert "1 images" in caplog.text
    assert "the first is cafe/000009.jpg" in caplog.text


def test_a_scene_without_pedestrians_is_named_with_its_first_object(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_folder(tmp_path, frames=1)
    people = [{**person(1), "label_id": "person:1"}, {**person(2), "label_id": "person:2"}]
    write_labels(tmp_path, "hall", {"000000.jpg": people})
    write_labels(tmp_path, "cafe", {"000000.jpg": [person(1), {**person(2), "label_id": "robot:1"}]})
    with caplog.at_level("WARNING", "stage2"):
        read_scenes(tmp_path)
    (line,) = caplog.messages
    assert "Scene hall" in line and "2 other objects" in line and "'person:1' in frame 000000.jpg" in line


def test_a_scene_that_does_not_exist_is_named_with_its_near_match(tmp_path: Path) -> None:
    write_folder(tmp_path, ("attic", "cafe-2019_0"), frames=1)
    with pytest.raises(
        DataError, match=r"no scene 'cafe-2019'; did you mean 'cafe-2019_0'\?; its scenes are attic, cafe"
    ):
        read_scenes(tmp_path, ("cafe-2019",))
    with pytest.raises(DataError, match="no scene 'x'; its scenes"):
        read_scenes(tmp_path, ("x",))


def test_only_the_named_scenes_are_read(tmp_path: Path) -> None:
    write_folder(tmp_path, ("attic", "cafe", "hall"), frames=1)
    (tmp_path / LABELS / "attic.json").write_text("damaged")
    assert [scene.name for scene in read_scenes(tmp_path, ("hall", "cafe"))] == ["cafe", "hall"]
