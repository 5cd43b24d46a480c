"""JRDB-format folders: the original annotations, malicious files and names, and consistent counts."""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.errors import DataError
from extract.annotations.jrdb import (
    LABELS,
    frame_name,
    image_path,
    read_scene,
    read_scenes,
    scene_digests,
    scene_names,
)
from extract.annotations.objects import load_labels
from extract.images.read import FrameError
from extract.units.plan import plan_scene
from extract.units.skips import count_planned, ledger_before_reading
from store.format.manifest import Selection
from tests.jrdb_folder import person, random_people, read_labels, write_folder, write_image, write_labels

ORIGINAL = Path(__file__).parents[4] / "shared" / "data" / "jrdb-par"


@pytest.mark.skipif(not ORIGINAL.is_dir(), reason="the original annotations are not available")
def test_the_original_annotations_are_read() -> None:
    scenes = read_scenes(ORIGINAL)
    assert len(scenes) == 27
    assert sum(len(scene.tables.frame_name) for scene in scenes) == 1850
    assert sum(len(scene.tables.box) for scene in scenes) == 46_034
    assert not [item for scene in scenes for item in scene.skipped if item.reason.startswith(("box", "bad", "dup"))]


def test_tables_of_a_scene(tmp_path: Path) -> None:
    write_labels(
        tmp_path,
        "cafe",
        {
            "000010.jpg": [person(3, (1, 2, 3, 4))],
            "000002.jpg": [
                person(5, (9, 9, 9, 9), {1: ["walking together"], 2: ["conversation"]}),
                person(1, (5, 6, 7, 8)),
                person(2, (4, 4, 4, 4), {1: ["walking together"]}),
            ],
            "000005.jpg": [],
        },
    )
    image = write_image(tmp_path, "cafe", "000002.jpg")
    write_image(tmp_path, "cafe", "000099.jpg")
    scene = read_scene(tmp_path, "cafe")
    tables = scene.tables
    assert tables.frame_name.tolist() == ["000002.jpg", "000005.jpg", "000010.jpg"]
    assert tables.frame_index.tolist() == [0, 1, 2]
    assert tables.frame_offset.tolist() == [0, 3, 3, 4]
    assert tables.person_id.tolist() == [5, 1, 2, 3]
    assert tables.box[0].tolist() == [9, 9, 9, 9]
    labels = [tables.label_sets[label] for label in tables.label]
    assert dict(zip(map(tuple, tables.pair.tolist()), labels, strict=True)) == {
        (0, 1): ("walking together",),
        (0, 2): ("conversation",),
        (1, 2): ("walking together",),
    }
    assert tables.pair_frame.tolist() == [0, 0, 0]
    assert scene.image_bytes.tolist() == [image.stat().st_size, -1, -1]
    assert len(scene.unannotated) == 1


def test_an_empty_scene_and_empty_frames(tmp_path: Path) -> None:
    write_labels(tmp_path, "none", {})
    write_labels(tmp_path, "quiet", {"1.jpg": [], "2.jpg": []})
    scenes = read_scenes(tmp_path)
    assert [len(scene.tables.frame_name) for scene in scenes] == [0, 2]
    assert [scene.tables.box.shape for scene in scenes] == [(0, 4), (0, 4)]
    assert [scene.tables.pair.shape for scene in scenes] == [(0, 2), (0, 2)]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "not valid JSON"),
        (b'{"labels": {"1.jpg": [', "not valid JSON"),
        (b'{"labels": {"1.jpg": []}', "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"labels": ' * 100_000, "nested too deeply"),
        (b'{"labels": {"caf\xe9.jpg": []}}', "not UTF-8"),
        ('{"labels": {}}'.encode("utf-16"), "not UTF-8"),
        (b'{"labels": {"1.jpg": [], "1.jpg": []}}', "'1.jpg' occurs twice"),
        (b'{"labels": {}, "labels": {}}', "'labels' occurs twice"),
        (b'{"labels": {"1.jpg": [{"box": [1,2,3,4], "box": [1,2,3,5]}]}}', "'box' occurs twice"),
        (b'{"labels": []}', """no "labels" object .* keys are 'labels'"""),
        (b'{"info": 1, "frames": {}}', "keys are 'info', 'frames'"),
        (b"{}", 'no "labels"'),
        (b"[1, 2, 3]", "it contains .1, 2, 3."),
        (b"null", 'no "labels"'),
        (b'{"labels": {"1.jpg": ' + b"9" * 5000 + b"}}", "not valid JSON"),
        (b'{"labels": {}} x', "not valid JSON"),
    ],
)
def test_an_invalid_annotation_file_is_refused(data: bytes, word: str) -> None:
    with pytest.raises(DataError, match=word) as error:
        load_labels(data, Path("scene.json"))
    assert "scene.json" in str(error.value)


def test_a_byte_order_mark_and_nonstandard_numbers_are_accepted() -> None:
    data = b'\xef\xbb\xbf{"labels": {"1.jpg": [{"label_id": "pedestrian:1", "box": [NaN, 1e999, -Infinity, 1]}]}}'
    assert list(load_labels(data, Path("x"))) == ["1.jpg"]


@pytest.mark.parametrize("depth", [*range(880, 1000, 4)])
def test_nesting_near_the_recursion_limit_is_read_or_refused(tmp_path: Path, depth: int) -> None:
    """A deeply nested value for each key is read, or refused as too deep."""
    deep = "[" * depth + "]" * depth
    path = write_labels(tmp_path, "deep", {})
    for key in ("label_id", "box", "H-interaction"):
        path.write_text(
            f'{{"labels": {{"1.jpg": [{{"label_id": "pedestrian:1", "{key}x": 1, "{key}": {deep}}}]}}}}'
            if key != "label_id"
            else f'{{"labels": {{"1.jpg": [{{"label_id": {deep}}}]}}}}'
        )
        try:
            assert read_scene(tmp_path, "deep").skipped
        except DataError as error:
            assert "deep" in str(error)


@given(st.binary(max_size=100))
def test_random_bytes_are_labels_or_a_data_error(junk: bytes) -> None:
    for data in (junk, b'{"labels": {' + junk, b'{"labels": {"a": [' + junk + b"]}}"):
        try:
            load_labels(data, Path("x"))
        except DataError as error:
            assert str(error).startswith("x ")


BAD_NAMES = ["", ".", "..", "../secret.jpg", "/etc/hostname", "a/b.jpg", "a\0.jpg", "000000.jpg\0", "\ud800.jpg"]
BAD_NAMES += ["n" * 256 + ".jpg", "é" * 128, "../cafe/000000.jpg"]
GOOD_NAMES = ["000000.jpg", "é.jpg", "e\u0301.jpg", "a b.jpg", "..jpg", "-rf", "n" * 255, "\U0001f600.jpg", "a\nb.jpg"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_is_not_a_file_name_gets_a_harmless_substitute(name: str) -> None:
    substitute = frame_name(name)
    assert "/" in substitute
    substitute.encode()
    assert len(substitute) < 100
    with pytest.raises(FrameError) as error:
        image_path(Path("data"), "scene", substitute)
    assert error.value.reason == "bad_frame_name"


@given(st.lists(st.text(st.characters() | st.just("/"), max_size=5) | st.sampled_from(BAD_NAMES), unique=True))
def test_different_names_remain_different(names: list[str]) -> None:
    assert len({frame_name(name) for name in names}) == len(names)


def test_valid_names_are_not_changed(tmp_path: Path) -> None:
    write_labels(tmp_path, "cafe", {name: [person(1)] for name in GOOD_NAMES})
    assert set(read_scene(tmp_path, "cafe").tables.frame_name) == set(GOOD_NAMES)


def test_a_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="check --data_path"):
        scene_names(tmp_path)
    (tmp_path / LABELS).mkdir(parents=True)
    (tmp_path / LABELS / "._cafe.json").write_bytes(b"\0\5\x16\7")  # as macOS creates them
    with pytest.raises(DataError, match="contains no annotations"):
        scene_names(tmp_path)


def test_h4_an_annotation_file_that_is_not_a_regular_file_is_refused(tmp_path: Path) -> None:
    path = write_labels(tmp_path, "cafe", {})
    path.unlink()
    os.mkfifo(path)  # opening it would block
    with pytest.raises(DataError, match=r"cafe\.json cannot be read \(it is not a regular file\)"):
        read_scenes(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=r"cafe\.json"):
        scene_digests(tmp_path)


def test_a_scene_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / LABELS).mkdir(parents=True)
    with open(os.fsencode(tmp_path / LABELS) + b"/caf\xe9.json", "w") as file:  # noqa: PTH123
        json.dump({"labels": {}}, file)
    with pytest.raises(DataError, match="not UTF-8"):
        scene_names(tmp_path)


def test_digests_of_labels_and_of_images_are_independent(tmp_path: Path) -> None:
    write_folder(tmp_path)
    before = scene_digests(tmp_path)
    write_image(tmp_path, "hall", "000001.jpg", seed=77)
    changed = read_labels(tmp_path, "cafe")
    changed["000000.jpg"][0]["box"][0] += 1
    write_labels(tmp_path, "cafe", changed)
    after = scene_digests(tmp_path)
    assert before["cafe"].labels != after["cafe"].labels
    assert before["cafe"].images == after["cafe"].images
    assert before["hall"].labels == after["hall"].labels
    assert before["hall"].images != after["hall"].images


def corrupt(rng: np.random.Generator, item: dict[str, Any]) -> Any:
    """Returns the object damaged in a random way."""
    ways = [
        lambda: {**item, "box": [1, 2, 0, 4]},
        lambda: {**item, "box": [float("nan"), 2, 3, 4]},
        lambda: {**item, "box": [1, 2, 2**70, True]},
        lambda: {**item, "label_id": "pedestrian:0"},
        lambda: {**item, "label_id": "pedestrian:\ud800"},
        lambda: {**item, "H-interaction": [{"pair": "pedestrian:99", "inter_labels": {"x": 1}}]},
        lambda: {**item, "H-interaction": [{"pair": item["label_id"], "inter_labels": {"x": 1}}]},
        lambda: {**item, "H-interaction": [{"pair": "pedestrian:1", "inter_labels": {"\udfff": 1}}, 3]},
        lambda: None,
    ]
    return ways[int(rng.integers(len(ways)))]()


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), interval=st.integers(1, 3), persons=st.sampled_from(["all", "paired"]))
def test_planned_is_stored_plus_skipped(
    tmp_path_factory: pytest.TempPathFactory, seed: int, interval: int, persons: str
) -> None:
    rng = np.random.default_rng(seed)
    root = tmp_path_factory.mktemp("data")
    names = ["1.jpg", "2.jpg", *rng.choice(BAD_NAMES, 2, replace=False).tolist()]
    frames: dict[str, Any] = {name: random_people(rng, int(rng.integers(6))) for name in names}
    frames = {name: [corrupt(rng, p) if rng.random() < 0.4 else p for p in items] for name, items in frames.items()}
    if rng.random() < 0.3:
        frames["3.jpg"] = {"no": "list"}
    write_labels(root, "cafe", frames)
    if rng.random() < 0.5:
        write_image(root, "cafe", "1.jpg")
    units = plan_scene(read_scene(root, "cafe"), Selection(interval, persons), 4096)
    planned = count_planned(units)
    usable = {
        "frame": sum(int((unit.image_bytes >= 0).sum()) for unit in units),
        "person": sum(int(np.diff(unit.tables.frame_offset)[unit.image_bytes >= 0].sum()) for unit in units),
        "pair": sum(int((unit.image_bytes >= 0)[unit.tables.pair_frame].sum()) for unit in units),
    }
    skipped = {kind: sum(counts.values()) for kind, counts in ledger_before_reading(units).skipped.items()}
    assert {kind: usable[kind] + skipped[kind] for kind in planned} == planned
    assert planned["frame"] == len(range(0, len(frames), interval))
    if interval == 1 and persons == "all":
        people = sum(len(items) for items in frames.values() if isinstance(items, list))
        assert planned["person"] == people


@pytest.mark.timeout(20)
def test_h5_many_keys_of_which_one_is_repeated_are_refused_in_linear_time(tmp_path: Path) -> None:
    keys = [f'"{number}": []' for number in range(60_000)]
    path = tmp_path / "a.json"
    start = time.process_time()
    with pytest.raises(DataError, match="'59999' occurs twice"):
        load_labels(('{"labels": {' + ", ".join([*keys, keys[-1]]) + "}}").encode(), path)
    assert time.process_time() - start < 3  # a quadratic search takes over 20 s
