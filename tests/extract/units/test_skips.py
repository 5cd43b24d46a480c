"""Counts of skipped frames, persons and pairs before anything is read: each is counted once."""

from collections import Counter
from pathlib import Path

import pytest

from configs.errors import TooManySkippedError
from extract.units.plan import plan_units
from extract.units.skips import check_skip_limit, count_planned, count_skipped_before_reading
from store.format.manifest import Selection
from tests.jrdb_folder import person, write_image, write_labels


def people(*ids: int) -> list[dict[str, object]]:
    return [person(number, (20 * number, 10, 12, 30), {number + 1: ["sitting together"]}) for number in ids[:-1]] + [
        person(ids[-1], (20 * ids[-1], 10, 12, 30))
    ]


def counts_of(root: Path) -> dict[tuple[str, str], int]:
    units = plan_units(root, Selection(1, "all"))
    return {key: count for key, count in count_skipped_before_reading(units).items() if count}


def test_a_frame_without_an_image_is_counted_with_its_persons_and_pairs(tmp_path: Path) -> None:
    write_labels(tmp_path, "s", {"0.jpg": people(1, 2, 3), "1.jpg": people(1, 2), "2.jpg": people(1, 2)})
    write_image(tmp_path, "s", "1.jpg")
    assert counts_of(tmp_path) == {
        ("frame", "image_missing"): 2,
        ("person", "image_missing"): 5,
        ("pair", "image_missing"): 3,
    }


def test_a_broken_frame_without_an_image_is_counted_once(tmp_path: Path) -> None:
    write_labels(tmp_path, "s", {"0.jpg": "not a list", "1.jpg": people(1, 2)})
    write_image(tmp_path, "s", "1.jpg")
    counts = counts_of(tmp_path)
    assert sum(count for (kind, _), count in counts.items() if kind == "frame") == 1
    assert ("frame", "image_missing") not in counts


def test_a_broken_person_does_not_hide_that_the_image_of_the_frame_is_missing(tmp_path: Path) -> None:
    write_labels(tmp_path, "s", {"0.jpg": [*people(1, 2), person(3, "no box")], "1.jpg": people(1, 2)})
    write_image(tmp_path, "s", "1.jpg")
    assert counts_of(tmp_path)["frame", "image_missing"] == 1


def test_the_limit_is_a_share_of_the_planned_items_of_a_kind(tmp_path: Path) -> None:
    write_labels(tmp_path, "s", {f"{number}.jpg": people(1, 2) for number in range(4)})
    units = plan_units(tmp_path, Selection(1, "all"))
    assert count_planned(units) == {"frame": 4, "person": 8, "pair": 4}
    check_skip_limit(Counter({("person", "box_huge"): 2}), units, 0.25)
    with pytest.raises(TooManySkippedError, match=r"3 of 8 planned persons cannot be stored \(box_huge 3\)"):
        check_skip_limit(Counter({("person", "box_huge"): 3}), units, 0.25)


def test_r22_absent_partners_are_counted_and_do_not_count_towards_the_limit(tmp_path: Path) -> None:
    frames = {f"{frame}.jpg": [*people(1, 2, 3), person(7, (90, 10, 12, 30), {8: ["conversation"]})] for frame in "01"}
    write_labels(tmp_path, "s", frames)
    for frame in frames:
        write_image(tmp_path, "s", frame)
    units = plan_units(tmp_path, Selection(1, "all"))
    counts = count_skipped_before_reading(units)
    assert {key: count for key, count in counts.items() if count} == {("pair", "missing_partner"): 2}
    assert count_planned(units)["pair"] == 6
    check_skip_limit(counts, units, 0.0)
    with pytest.raises(TooManySkippedError, match="1 of 6 planned pairs"):
        check_skip_limit(counts + Counter({("pair", "partner_skipped"): 1}), units, 0.0)
