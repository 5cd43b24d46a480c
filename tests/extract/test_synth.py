"""Synthetic datasets: valid JRDB format, deterministic, and boxes that do not reveal the class."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import ConfigError, DataError, StorageError
from configs.splits import JRDB_SPLIT, SPLIT_NAMES
from extract.annotations.jrdb import IMAGES, LABELS, read_scenes, scene_names
from extract.images.read import read_frame
from extract.synth.crowd import draw_crowd, persons_in
from extract.synth.dataset import draw_dataset, draw_for_labels
from store.tables import Tables
from tests.jobs import fill_disk


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_dataset(tmp_path_factory.mktemp("synth") / "data", scenes=4, frames=3, people=12, seed=5)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_the_dataset_is_read_completely(drawn: Path) -> None:
    scenes = read_scenes(drawn)
    assert len(scenes) == 4
    assert all(not scene.skipped and not scene.other_objects and not scene.unannotated for scene in scenes)
    assert all((scene.image_bytes > 0).all() for scene in scenes)
    path = next((drawn / LABELS).iterdir())
    item = next(iter(json.loads(path.read_text())["labels"].values()))[0]
    keys = {
        "label_id",
        "file_id",
        "box",
        "action_label",
        "attributes",
        "social_activity",
        "social_group",
        "H-interaction",
    }
    assert set(item) == keys
    image = next((drawn / IMAGES / path.stem).iterdir())
    assert read_frame(image).shape == (3, 480, 3760)


def test_train_val_and_test_have_scenes(drawn: Path) -> None:
    names = set(scene_names(drawn))
    assert all(names & set(JRDB_SPLIT.scenes(part)) for part in SPLIT_NAMES)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    one = draw_dataset(tmp_path / "a", scenes=3, frames=1, people=6, seed=1)
    two = draw_dataset(tmp_path / "b", scenes=3, frames=1, people=6, seed=1)
    other = draw_dataset(tmp_path / "c", scenes=3, frames=1, people=6, seed=2)
    assert files(one) == files(two)
    assert files(one) != files(other)


def test_boxes_cross_both_edges() -> None:
    groups = draw_crowd(np.random.default_rng(0), 40, 18)
    boxes = [
        p.box
        for group in groups
        for frame in range(group.first_frame, group.last_frame + 1)
        for p in persons_in(group, frame)
    ]
    assert any(x < 0 for x, *_ in boxes)
    assert any(x + w > 3760 for x, _, w, _ in boxes)


def test_labels_are_imbalanced_as_in_jrdb() -> None:
    groups = draw_crowd(np.random.default_rng(0), 2000, 18)
    counts = Counter(labels for group in groups for *_, labels in group.labels)
    total = sum(counts.values())
    walking = sum(n for labels, n in counts.items() if "walking together" in labels) / total
    standing = sum(n for labels, n in counts.items() if "standing together" in labels) / total
    sitting = sum(n for labels, n in counts.items() if "sitting together" in labels) / total
    talking = sum(n for labels, n in counts.items() if "conversation" in labels) / total
    assert 0.42 < walking < 0.57
    assert 0.27 < standing < 0.41
    assert 0.06 < sitting < 0.18
    assert 0.05 < talking < 0.14


def test_boxes_do_not_reveal_the_posture() -> None:
    groups = draw_crowd(np.random.default_rng(0), 3000, 18)
    shapes: dict[str, list[tuple[float, float]]] = {}
    for group in groups:
        for member in group.members:
            _, _, w, h = member.person.box
            shapes.setdefault(member.person.posture, []).append((w / h, h))
    means = np.array([np.mean(rows, axis=0) for rows in shapes.values()])
    deviation = np.std([row for rows in shapes.values() for row in rows], axis=0)
    assert (np.ptp(means, axis=0) < 0.15 * deviation).all()


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        draw_dataset(tmp_path, scenes=3, frames=1, people=2)
    assert files(tmp_path) == {"mine.txt": b"mine"}


@pytest.mark.parametrize("sizes", [{"scenes": 2}, {"scenes": 100}, {"frames": 0}, {"people": 0}])
def test_invalid_sizes_are_refused(tmp_path: Path, sizes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        draw_dataset(tmp_path / "d", **sizes)


def test_people_are_drawn_inside_given_boxes(tmp_path: Path) -> None:
    objects = [
        {
            "label_id": "pedestrian:1",
            "file_id": "000000.jpg",
            "box": [100, 150, 80, 200],
            "action_label": {"walking": 1},
        },
        {
            "label_id": "pedestrian:2",
            "file_id": "000000.jpg",
            "box": [3720, 180, 90, 190],
            "action_label": {"sitting": 1},
        },
        {"label_id": "pedestrian:3", "file_id": "000000.jpg", "box": [5, 5, 0, 0]},
    ]
    labels = tmp_path / "labels"
    labels.mkdir()
    content = json.dumps({"labels": {"000000.jpg": objects, "000015.jpg": [], "000030.jpg": 7}}).encode()
    (labels / "hall.json").write_bytes(content)
    out = draw_for_labels(labels, tmp_path / "out", scenes=None, frames=None)
    assert (out / LABELS / "hall.json").read_bytes() == content
    full, empty = (read_frame(out / IMAGES / "hall" / name).float() for name in ("000000.jpg", "000015.jpg"))
    changed = (full / full.mean() - empty / empty.mean()).abs().mean(0)
    assert changed[150:350, 100:180].mean() > 2 * changed[150:350, 1000:3000].mean()
    assert changed[180:370, :40].mean() > 2 * changed[150:350, 1000:3000].mean()  # across the seam


def test_only_the_first_scenes_and_frames_of_given_annotations_are_drawn(tmp_path: Path, drawn: Path) -> None:
    out = draw_for_labels(drawn, tmp_path / "out", scenes=2, frames=2)
    scenes = read_scenes(out)
    assert [len(scene.tables.frame_name) for scene in scenes] == [2, 2]
    first: Tables = read_scenes(drawn)[0].tables
    assert np.array_equal(scenes[0].tables.box, first.box[: first.frame_offset[2]])


def test_an_interrupted_job_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("extract.synth.dataset._write_labels", stop)
    with pytest.raises(KeyboardInterrupt):
        draw_dataset(tmp_path / "d", scenes=3, frames=1, people=2)
    assert not list(tmp_path.iterdir())


def test_p4_what_a_killed_run_leaves_does_not_block_the_next(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "file").touch()
    (tmp_path / ".out.abcd.partial").mkdir()
    draw_dataset(tmp_path / "out", scenes=3, frames=1, people=2)
    assert (tmp_path / "out.partial" / "file").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"out", "out.partial", ".out.abcd.partial"}


def test_p4_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("extract.synth.dataset._write_labels", interrupt)
    with pytest.raises(KeyboardInterrupt):
        draw_dataset(tmp_path / "out", scenes=3, frames=1, people=2)
    assert not list(tmp_path.iterdir())


def test_p8_the_current_folder_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    draw_dataset(Path(), scenes=3, frames=1, people=2)
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"images", "labels"}
    assert {path.name for path in Path().iterdir()} == {"images", "labels"}
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_p3_a_full_disk_is_one_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_disk(monkeypatch, 400_000)  # bytes; a picture has about as many
    with pytest.raises(StorageError, match="No space left") as stop:
        draw_dataset(tmp_path / "out", scenes=3, frames=2, people=2)
    assert stop.value.exit_code == 74
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    draw_dataset(tmp_path / "out", scenes=3, frames=1, people=2)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
