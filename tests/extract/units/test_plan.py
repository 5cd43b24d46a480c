"""A job without a person is refused before any image is read, with the reason and the first example."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import DataError
from extract.annotations.jrdb import LABELS, scene_names
from extract.dataset import read_dataset
from extract.images.identity import ImageIdentities
from extract.synth.dataset import draw_for_labels
from extract.units.plan import manifest_entry, plan_units
from store.format.manifest import Selection
from tests.jrdb_folder import person, write_folder, write_labels, write_scene
from tests.stores import RECIPE

ALL, PAIRED = Selection(1, "all"), Selection(1, "paired")
PAIR = [person(1), person(2, mentions={1: ["conversation"]})]


def odd(name: str) -> dict[str, Any]:
    return {**person(3), "label_id": name}


@pytest.mark.parametrize(
    ("frames", "selection", "message"),
    [
        ({"1.jpg": [], "2.jpg": [odd("person:3")]}, ALL, "'person:3' in frame 2.jpg of scene cafe"),
        ({"1.jpg": [odd("Pedestrian:3"), odd("robot:1")]}, PAIRED, "the first one is 'Pedestrian:3'"),
        ({"1.jpg": [], "2.jpg": []}, ALL, "its 2 annotated frames are empty"),
        ({}, ALL, "its 0 annotated frames are empty"),
        ({"1.jpg": [person(1), person(2)]}, PAIRED, "no pair is annotated among the 2 people"),
        ({"1.jpg": [], "2.jpg": PAIR}, Selection(2, "all"), "--frame_interval"),
        ({"1.jpg": [], "2.jpg": PAIR}, Selection(2, "paired"), "--frame_interval"),
        ({"1.jpg": 7}, ALL, r"the frame 1.jpg of scene cafe \(frame_format\)"),
    ],
)
def test_r11_no_person_is_an_error(tmp_path: Path, frames: Any, selection: Selection, message: str) -> None:
    write_labels(tmp_path, "cafe", frames)
    with pytest.raises(DataError, match=message):
        plan_units(tmp_path, selection)
    write_labels(tmp_path, "hall", {"1.jpg": PAIR, "2.jpg": []})
    assert sum(unit.persons for unit in plan_units(tmp_path, selection)) > 0  # one scene may be empty


def test_r11_end_to_end_training_refuses_data_without_a_person(tmp_path: Path) -> None:
    write_scene(tmp_path, "cafe", {"1.jpg": [odd("person:3")]})
    with pytest.raises(DataError, match="'person:3'"):
        read_dataset(tmp_path, PAIRED, max_skipped=1.0)


def test_r20_hidden_annotation_files_are_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_folder(tmp_path, ("cafe",), frames=1)
    for name in (".hall.json", "._cafe.json", "yard.JSON"):
        (tmp_path / LABELS / name).write_bytes(b"\0")
    (tmp_path / LABELS / "notes.txt").touch()
    for _ in range(2):
        assert scene_names(tmp_path) == ["cafe"]
    (record,) = caplog.records
    assert record.getMessage().startswith("Ignored in ")
    assert record.getMessage().endswith("in front: ._cafe.json, .hall.json, yard.JSON")


def test_r20_hidden_annotation_files_are_not_drawn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = tmp_path / "labels"
    write_labels(labels, "cafe", {"1.jpg": [person(1)]})
    (labels / LABELS / ".cafe.json").write_bytes(b"\0")
    out = draw_for_labels(labels, tmp_path / "out", scenes=None, frames=None)
    assert scene_names(out) == ["cafe"]
    assert ".cafe.json" in caplog.text


def test_the_digests_of_a_unit_are_those_of_earlier_versions(tmp_path: Path) -> None:
    """Otherwise an existing store would be computed again. The expected values were printed by such a version."""
    data = write_folder(tmp_path, ("cafe",), frames=2, people=3)
    (unit,) = plan_units(data, Selection(1, "all"), identities=ImageIdentities())
    entry = manifest_entry(replace(unit, image_ids=np.array(["a" * 64, "b" * 64])), RECIPE)
    assert entry.digest == "1e74e9b8efcf5aa3ff7fa2b507ba656ecda466cad882c1e9ca9b9ce276a15248"
    assert entry.visual_digest == "d23bf09ad5df74e58adefd30b94718c20bc27d2126a96116348b5479491a4727"


def test_the_digests_of_a_unit_depend_on_activation_ranges_but_not_on_their_order(tmp_path: Path) -> None:
    (unit,) = plan_units(write_folder(tmp_path, ("cafe",)), Selection(1, "all"), identities=ImageIdentities())
    ranges = {"stem": [0.0, 3.0], "layer1.0": [0.0, 2.0]}
    one, two, other = (
        manifest_entry(unit, replace(RECIPE, precision="int8", activation_ranges=values))
        for values in (ranges, dict(reversed(ranges.items())), ranges | {"stem": [0.0, 3.5]})
    )
    assert one == two
    assert other.digest != one.digest and other.visual_digest != one.visual_digest
