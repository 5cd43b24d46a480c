"""Counts of skipped frames, persons and pairs before anything is read: each is counted once."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from configs.errors import TooManySkippedError
from extract.annotations.objects import read_objects
from extract.images.read import read_frame
from extract.units.plan import plan_units
from extract.units.skips import check_skip_limit, count_planned, expectation, ledger_before_reading
from store.format.ledger import Ledger
from store.format.manifest import Selection
from tests.jrdb_folder import person, write_image, write_labels, write_scene


def people(*ids: int) -> list[dict[str, object]]:
    return [person(number, (20 * number, 10, 12, 30), {number + 1: ["sitting together"]}) for number in ids[:-1]] + [
        person(ids[-1], (20 * ids[-1], 10, 12, 30))
    ]


def counts_of(root: Path) -> dict[tuple[str, str], int]:
    skipped = ledger_before_reading(plan_units(root, Selection(1, "all"))).skipped
    return {(kind, reason): count for kind, counts in skipped.items() for reason, count in counts.items()}


def damaged(ledger: Ledger, kind: str, reason: str, count: int) -> Ledger:
    """A ledger of the same plan in which `count` more items are skipped for `reason`."""
    used = {**ledger.used, kind: ledger.used[kind] - count}
    skipped = {**ledger.skipped, kind: {**ledger.skipped[kind], reason: count}}
    return replace(ledger, used=used, skipped=skipped)


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
    write_scene(tmp_path, "s", {f"{number}.jpg": people(1, 2) for number in range(4)})
    units = plan_units(tmp_path, Selection(1, "all"))
    assert count_planned(units) == {"frame": 4, "person": 8, "pair": 4}
    sound = ledger_before_reading(units)
    check_skip_limit(damaged(sound, "person", "box_huge", 2), 0.25)
    with pytest.raises(TooManySkippedError, match=r"3 of 8 planned persons cannot be used \(box_huge 3\)"):
        check_skip_limit(damaged(sound, "person", "box_huge", 3), 0.25)


def test_r22_absent_partners_are_counted_and_do_not_count_towards_the_limit(tmp_path: Path) -> None:
    frames = {f"{frame}.jpg": [*people(1, 2, 3), person(7, (90, 10, 12, 30), {8: ["conversation"]})] for frame in "01"}
    write_labels(tmp_path, "s", frames)
    for frame in frames:
        write_image(tmp_path, "s", frame)
    units = plan_units(tmp_path, Selection(1, "all"))
    ledger = ledger_before_reading(units)
    assert (ledger.by_reason(), ledger.damaged) == ({"missing_partner": 2}, 0)
    assert count_planned(units)["pair"] == 6
    check_skip_limit(ledger, 0.0)
    with pytest.raises(TooManySkippedError, match="1 of 6 planned pairs"):
        check_skip_limit(damaged(ledger, "pair", "partner_skipped", 1), 0.0)


def test_r3_the_message_names_the_first_example_of_each_reason_with_what_was_found_and_expected(tmp_path: Path) -> None:
    frames = {"0.jpg": [*people(1, 2), person(7, [5, 5, 0, 9])], "1.jpg": [person(8, [5, 5, 0, 8]), person(9, "wide")]}
    write_labels(tmp_path, "hall", frames)
    with pytest.raises(TooManySkippedError) as error:
        check_skip_limit(ledger_before_reading(plan_units(tmp_path, Selection(1, "all"))), 0.5)
    first = "2 of 2 planned frames cannot be used (image_missing 2), more than --max_skipped 0.5 allows; first image_"
    assert str(error.value).startswith(first)
    assert "first image_missing: hall 0.jpg, expected an image file images/image_stitched/" in str(error.value)
    for frame in frames:
        write_image(tmp_path, "hall", frame)
    with pytest.raises(TooManySkippedError) as error:
        check_skip_limit(ledger_before_reading(plan_units(tmp_path, Selection(1, "all"))), 0.5)
    text = str(error.value)
    assert "first box_zero_area: hall 0.jpg person 7 ([5, 5, 0, 9]), expected a width and a height above 0;" in text
    assert "first box_format: hall 1.jpg person 9 ('wide'), expected a box [x, y, width, height] of" in text
    assert "first duplicate" not in text


def test_r3_every_reason_to_skip_an_item_has_an_expectation() -> None:
    """The reasons are those that the documentation strings of the readers list."""
    listed = set(re.findall(r"[a-z]+_[a-z_]+", str(read_objects.__doc__) + str(read_frame.__doc__)))
    reasons = {reason for reason in listed if reason.split("_")[0] in ("box", "bad", "image", "frame", "pair", "self")}
    assert len(reasons) > 15
    assert all(expectation(reason) for reason in reasons)
    assert expectation("missing_partner") == ""  # not damage, so no message needs it
