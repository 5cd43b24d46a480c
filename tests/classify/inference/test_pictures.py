"""Drawn predictions are written whole or not at all, once, under the names of their frames, and only where allowed."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from classify.inference.predict import PredictOptions, predict
from configs.errors import ConfigError, LockedError, StorageError
from extract.annotations.jrdb import IMAGES
from store.files import exclusive_folder_lock
from tests.factories import make_random_run
from tests.jobs import fill_disk
from tests.jrdb_folder import SIZE, person, write_folder, write_image, write_labels, write_scene

SCENE = "cafe"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_random_run(tmp_path_factory.mktemp("run"))[0]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"), (SCENE, "hall"), frames=3, people=3)


def draw(run: Path, data: Path, folder: Path, out: str = "out.json", **options: Any) -> dict[str, bytes]:
    """Draws into folder/pictures; returns the files in it: relative path -> bytes."""
    values = {"pairing": "all", "draw": folder / "pictures", "device": "cpu"}
    predict(run, data, folder / out, PredictOptions(**(values | options)))
    return files(folder / "pictures")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_r20_each_picture_has_the_name_and_the_format_of_its_frame(tmp_path: Path, run: Path) -> None:
    names = ("a.jpg", "a.png", "a.png.jpg", "b.JPEG")
    write_scene(tmp_path / "data", SCENE, {name: [person(1), person(2, (60, 10, 12, 30))] for name in names})
    drawn = draw(run, tmp_path / "data", tmp_path)
    assert set(drawn) == {f"{SCENE}/{name}" for name in names}
    for name in names:
        with Image.open(tmp_path / "pictures" / SCENE / name) as picture:
            assert (picture.format, picture.size) == ("PNG" if name == "a.png" else "JPEG", SIZE)


def test_names_of_any_characters_and_length(tmp_path: Path, run: Path) -> None:
    scene, name = (
        "caf\N{LATIN SMALL LETTER E WITH ACUTE} %s 'x' \N{GRINNING FACE}",
        "\N{CJK UNIFIED IDEOGRAPH-6B65}" * 83,
    )
    write_scene(tmp_path / "data", scene, {f"{name}.jpg": [person(1), person(2, (60, 10, 12, 30))]})
    assert set(draw(run, tmp_path / "data", tmp_path)) == {f"{scene}/{name}.jpg"}


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.9, 0.999])
def test_p3_a_full_disk_leaves_whole_pictures_and_no_predictions(
    tmp_path: Path, run: Path, data: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    complete = draw(run, data, tmp_path / "complete")
    total = sum(map(len, complete.values())) + (tmp_path / "complete" / "out.json").stat().st_size
    fill_disk(monkeypatch, int(share * total))
    with pytest.raises(StorageError, match="No space left") as stop:
        draw(run, data, tmp_path / "full")
    monkeypatch.undo()
    assert stop.value.exit_code == 74
    assert files(tmp_path / "full" / "pictures").items() <= complete.items()
    assert {path.name for path in (tmp_path / "full").iterdir()} == {"pictures"}
    assert draw(run, data, tmp_path / "full", overwrite=True) == complete
    assert (tmp_path / "full" / "out.json").read_bytes() == (tmp_path / "complete" / "out.json").read_bytes()


def test_p3_pictures_are_drawn_once_when_the_predictions_are_written_twice(
    tmp_path: Path, run: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, inodes = os.fsync, []

    def fail_once(descriptor: int) -> None:
        if not inodes and "out.json" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            inodes.extend(sorted(path.stat().st_ino for path in (tmp_path / "pictures").rglob("*.jpg")))
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_once)
    draw(run, data, tmp_path)
    assert inodes == sorted(path.stat().st_ino for path in (tmp_path / "pictures").rglob("*.jpg"))
    assert len(inodes) == 6
    monkeypatch.undo()
    draw(run, data, tmp_path, out="again.json", overwrite=True)
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "again.json").read_bytes()


def test_what_a_killed_job_leaves_of_a_picture_is_removed_by_the_next(tmp_path: Path, run: Path, data: Path) -> None:
    folder = tmp_path / "pictures" / SCENE
    folder.mkdir(parents=True)
    (folder / f".000000.jpg.{'0123456789abcdef'}.tmp").write_bytes(b"part")
    others = (f".notes.txt.{'0123456789abcdef'}.tmp", ".000000.jpg.tmp", "mine.jpg")
    for name in others:
        (folder / name).touch()
    draw(run, data, tmp_path, overwrite=True)
    pictures = {f"{index:06d}.jpg" for index in range(3)}
    assert {path.name for path in folder.iterdir()} == {*pictures, *others}


def test_two_jobs_do_not_draw_into_one_folder(tmp_path: Path, run: Path, data: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with exclusive_folder_lock(tmp_path / "pictures"), pytest.raises(LockedError, match="pictures"):
        draw(run, data, tmp_path)
    assert files(tmp_path) == {}
    assert len(draw(run, data, tmp_path)) == 6


def test_an_output_that_appears_during_the_job_is_not_replaced(
    tmp_path: Path, run: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def write_and_interfere(descriptor: int, piece: memoryview) -> int:
        (tmp_path / "out.json").write_text("another job's")
        return write(descriptor, piece)

    monkeypatch.setattr(os, "write", write_and_interfere)
    with pytest.raises(ConfigError, match="already exists"):
        draw(run, data, tmp_path)
    assert (tmp_path / "out.json").read_text() == "another job's"


@pytest.mark.parametrize("out", [f"pictures/{SCENE}/000000.jpg", f"pictures/{SCENE}", "pictures"])
def test_w1_predictions_in_the_place_of_pictures_are_refused(tmp_path: Path, run: Path, data: Path, out: str) -> None:
    with pytest.raises(ConfigError, match="--out"):
        draw(run, data, tmp_path, out)
    assert not list(tmp_path.iterdir())


def test_predictions_may_be_beside_the_pictures(tmp_path: Path, run: Path, data: Path) -> None:
    assert len(draw(run, data, tmp_path, "pictures/predictions.json")) == 7


def in_the_data(data: Path, _: Path) -> Path:
    return data


def in_the_images(data: Path, _: Path) -> Path:
    return data / "images" / "pictures"


def with_a_scene_linked_into_the_data(data: Path, folder: Path) -> Path:
    (folder / "linked").mkdir()
    (folder / "linked" / SCENE).symlink_to(data / IMAGES / SCENE)
    return folder / "linked"


def with_a_picture_that_is_a_link(data: Path, folder: Path) -> Path:
    (folder / "linked" / SCENE).mkdir(parents=True)
    (folder / "linked" / SCENE / "000000.jpg").symlink_to(data / IMAGES / SCENE / "000000.jpg")
    return folder / "linked"


def with_a_file_for_a_scene(_: Path, folder: Path) -> Path:
    (folder / "linked").mkdir()
    (folder / "linked" / SCENE).touch()
    return folder / "linked"


@pytest.mark.parametrize(
    "place",
    [
        in_the_data,
        in_the_images,
        with_a_scene_linked_into_the_data,
        with_a_picture_that_is_a_link,
        with_a_file_for_a_scene,
    ],
)
def test_w2_pictures_in_the_data_or_through_links_are_refused(
    tmp_path: Path, run: Path, data: Path, place: Callable[[Path, Path], Path]
) -> None:
    before = files(data)
    with pytest.raises(ConfigError, match="name an"):
        draw(run, data, tmp_path, draw=place(data, tmp_path), overwrite=True)
    assert files(data) == before
    assert not (tmp_path / "out.json").exists()


def test_a_frame_whose_image_is_a_link_out_of_the_data_has_no_picture(tmp_path: Path, run: Path) -> None:
    write_labels(tmp_path / "data", SCENE, {name: [person(1), person(2)] for name in ("a.jpg", "b.jpg")})
    write_image(tmp_path / "data", SCENE, "a.jpg")
    outside = write_image(tmp_path / "other", SCENE, "b.jpg")
    (tmp_path / "data" / IMAGES / SCENE / "b.jpg").symlink_to(outside)
    assert set(draw(run, tmp_path / "data", tmp_path, max_skipped=0.5)) == {f"{SCENE}/a.jpg"}
