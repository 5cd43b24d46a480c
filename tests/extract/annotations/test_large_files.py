"""Reading many objects: no garbage collection, progress on a terminal, and the same images as a full parse finds."""

import gc
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import DataError
from configs.extraction_config import ExtractionConfig
from extract.annotations.jrdb import IMAGES, LABELS, _mentioned, read_scenes, scene_digests
from extract.images.identity import ImageIdentities
from extract.job import plan_manifest, requested_manifest
from extract.units.plan import UnitSize

_NAMES = st.sampled_from(["a.jpg", "b.JPG", "c.d.png", "e.jpeg", ".jpg", "jpg", "a.jpg ", "x:.png", "f"])
_VALUES = st.recursive(_NAMES | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(_NAMES, inner))


def _strings(value: Any) -> Iterator[str]:
    """All strings of a parsed document, keys included."""
    if isinstance(value, str):
        yield value
    for part in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from _strings(part)


@given(_VALUES, st.sampled_from([None, 1]))
def test_mentioned_images_are_those_that_a_parser_finds(document: Any, indent: int | None) -> None:
    images = ["a.jpg", "b.JPG", "c.d.png", "e.jpeg", ".jpg", "x:.png"]
    text = json.dumps(document, indent=indent).encode()
    assert _mentioned(images, text) == [name for name in images if name in set(_strings(document))]


def test_all_images_are_mentioned_by_a_text_with_escape_sequences() -> None:
    assert _mentioned(["a.jpg"], b'{"\\u0061.jpg": []}') == ["a.jpg"]


def _write(folder: Path, text: str) -> Path:
    (folder / LABELS).mkdir(parents=True)
    (folder / LABELS / "scene.json").write_text(text)
    (folder / IMAGES / "scene").mkdir(parents=True)
    return folder


@pytest.fixture
def collections() -> Iterator[list[int]]:
    """The garbage collections of the oldest generation while a test runs."""
    seen: list[int] = []

    def record(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            seen.append(info["generation"])

    gc.callbacks.append(record)
    yield seen
    gc.callbacks.remove(record)


def test_no_garbage_is_collected_while_annotations_are_read(tmp_path: Path, collections: list[int]) -> None:
    """Python would search all objects of a scene for reference cycles again and again, which doubles the time."""
    objects = [{"label_id": f"pedestrian:{number}", "box": [1, 2, 3, 4]} for number in range(50)]
    frames = {f"{frame}.jpg": objects for frame in range(200)}
    data = _write(tmp_path, json.dumps({"labels": frames}))
    collections.clear()
    scenes = read_scenes(data)
    during = len(collections)
    assert len(scenes[0].tables.box) == 10_000
    assert during <= 3  # one for each generation, after reading
    assert gc.isenabled()


def test_garbage_collection_is_on_again_after_an_error(tmp_path: Path) -> None:
    data = _write(tmp_path, '{"labels": {"a.jpg": [{"box": [1], "box": [2]}]}}')
    with pytest.raises(DataError, match="'box' occurs twice"):
        read_scenes(data)
    assert gc.isenabled()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "shown"), [(_Terminal, True), (io.StringIO, False)])
def test_progress_is_shown_on_terminals_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], shown: bool
) -> None:
    data = _write(tmp_path, '{"labels": {"a.jpg": []}}')
    screen = stream()
    monkeypatch.setattr("sys.stderr", screen)
    scene_digests(data)
    read_scenes(data)
    assert ("identify: " in screen.getvalue()) == ("plan: " in screen.getvalue()) == shown


def test_planning_logs_what_it_planned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = {f"{n}.jpg": [{"label_id": "pedestrian:1", "box": [1, 2, 3, 4]}] for n in range(3)}
    config = ExtractionConfig(data_path=str(_write(tmp_path, json.dumps({"labels": frames}))))
    identities = ImageIdentities()
    with caplog.at_level(logging.INFO, "stage2"):
        plan_manifest(config, requested_manifest(config, None, identities), UnitSize(), identities)
    assert "Planned 3 people in 3 frames of 1 scenes" in caplog.text


def test_images_that_lead_out_of_the_data_are_refused_whatever_is_known_about_their_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(b"1")
    inside, linked = tmp_path / "root" / "scene", tmp_path / "root" / "linked"
    inside.mkdir(parents=True)
    linked.symlink_to(tmp_path, target_is_directory=True)
    (inside / "a.jpg").write_bytes(b"2")
    (inside / "link.jpg").symlink_to(outside)
    (inside / "near.jpg").symlink_to(inside / "a.jpg")
    names = ["a.jpg", "link.jpg", "near.jpg", "../../outside.jpg"]
    identities = ImageIdentities().of_folder(inside, names, tmp_path / "root")
    assert identities[0] == identities[2]
    assert len(identities[0]) == 64
    assert identities[1] == identities[3] == "image_outside"
    assert ImageIdentities().of_folder(linked, ["outside.jpg"], tmp_path / "root") == ["image_outside"]
