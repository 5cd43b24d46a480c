"""Objects of one frame: usable ones are read, and unusable ones are skipped with a reason; none is lost."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.annotations.objects import FrameObjects, box_fault, printable, read_objects
from tests.jrdb_folder import person


def read(*objects: Any) -> FrameObjects:
    return read_objects("scene", "000000.jpg", list(objects))


def reasons(frame: FrameObjects) -> dict[tuple[str, str], str]:
    return {(item.kind, item.item): item.reason for item in frame.skipped}


def test_persons_keep_the_file_order_and_two_mentions_are_one_pair() -> None:
    frame = read(
        person(7, (1, 2, 3, 4), {5: ["walking together"]}), person(5, (5.5, -6, 7, 8), {7: ["walking together"]})
    )
    assert frame.ids == [7, 5]
    assert frame.boxes == [[1, 2, 3, 4], [5.5, -6, 7, 8]]
    assert frame.pairs == {(0, 1): ("walking together",)}
    assert frame.skipped == []


def test_all_labels_of_a_pair_are_read_in_alphabetical_order() -> None:
    first, second = person(1, mentions={2: ["walking together", "conversation"]}), person(2)
    assert read(first, second).pairs == {(0, 1): ("conversation", "walking together")}


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ([1, 2, 3, 4], None),
        ([-1.5, 2, 0.5, 4], None),
        (None, "box_format"),
        ([1, 2, 3], "box_format"),
        ([1, 2, 3, 4, 5], "box_format"),
        ({"x": 1}, "box_format"),
        ("1234", "box_format"),
        ([1, 2, "3", 4], "box_type"),
        ([1, 2, True, 4], "box_type"),
        ([1, 2, None, 4], "box_type"),
        ([1, 2, [3], 4], "box_type"),
        ([float("nan"), 2, 3, 4], "box_not_finite"),
        ([1, 2, 3, float("inf")], "box_not_finite"),
        ([1, 1e999, 3, 4], "box_not_finite"),
        ([1, 2, 2**70, 4], "box_huge"),
        ([-(10**400), 2, 3, 4], "box_huge"),
        ([1, 2, 3, 1e7], "box_huge"),
        ([1, 2, -3, 4], "box_inverted"),
        ([1, 2, 3, -4.5], "box_inverted"),
        ([1, 2, 0, 4], "box_zero_area"),
        ([1, 2, 3, 0.0], "box_zero_area"),
    ],
)
def test_each_box_is_usable_or_has_a_reason(box: Any, reason: str | None) -> None:
    assert box_fault(box) == reason
    frame = read(person(1, box))
    assert frame.ids == ([] if reason else [1])
    assert reasons(frame) == ({("person", "1"): reason} if reason else {})


@pytest.mark.parametrize(
    ("name", "item"),
    [
        ("pedestrian:", "pedestrian:"),
        ("pedestrian:x", "pedestrian:x"),
        ("pedestrian:-1", "pedestrian:-1"),
        ("pedestrian:1.0", "pedestrian:1.0"),
        ("pedestrian:٣", "pedestrian:٣"),  # an Arabic digit is not accepted as 3
        ("pedestrian:1\n", "pedestrian:1\n"),
        ("pedestrian:" + "9" * 19, "pedestrian:" + "9" * 19),  # beyond int64
        ("person", "person"),
        ("\ud800", "?"),
        ("x" * 999, "x" * 200),
        (None, "NoneType"),
        (6, "int"),
        ([], "list"),
    ],
)
def test_invalid_ids_are_skipped(name: Any, item: str) -> None:
    assert reasons(read({**person(1), "label_id": name})) == {("person", item): "bad_id"}


def test_objects_other_than_pedestrians_are_counted_and_ignored() -> None:
    frame = read({**person(1), "label_id": "robot:1"}, person(2))
    assert (frame.other_objects, frame.ids, frame.skipped) == (1, [2], [])


@pytest.mark.parametrize("item", [None, 3, "pedestrian:1", [], True])
def test_a_malformed_object_is_skipped(item: Any) -> None:
    assert [entry.reason for entry in read(item).skipped] == ["object_format"]


@pytest.mark.parametrize("objects", [None, {}, "text", 3])
def test_a_frame_that_is_not_a_list_is_skipped(objects: Any) -> None:
    frame = read_objects("scene", "f", objects)
    assert [(item.kind, item.reason) for item in frame.skipped] == [("frame", "frame_format")]


def test_of_duplicate_persons_the_first_box_and_the_pairs_of_both_are_used() -> None:
    frame = read(person(1, (0, 0, 5, 5)), person(2), person(1, (9, 9, 9, 9), {2: ["walking together"]}))
    assert frame.ids == [1, 2]
    assert frame.boxes[0] == [0, 0, 5, 5]
    assert frame.pairs == {(0, 1): ("walking together",)}
    assert reasons(frame) == {("person", "1"): "duplicate_person"}


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        ([person(1, mentions={1: ["walking together"]})], "self_pair"),
        ([person(1, mentions={2: ["walking together"]})], "missing_partner"),
        ([person(1, mentions={2: ["walking together"]}), person(2, [1, 2, 0, 4])], "partner_skipped"),
        ([person(1), person(2, [1, 2, 0, 4], {1: ["walking together"]})], "partner_skipped"),
        ([person(1, [1, 2], {2: ["walking together"]}), person(2, [1, 2, 0, 4])], "partner_skipped"),
    ],
)
def test_unusable_pairs_are_skipped(objects: list[Any], reason: str) -> None:
    frame = read(*objects)
    assert frame.pairs == {}
    assert [item.reason for item in frame.skipped if item.kind == "pair"] == [reason]


NO_PARTNER = (3, None, {}, {"pair": 5, "inter_labels": {}}, *({"pair": name} for name in ("2", "pedestrian:x", "")))
NO_LABELS = ({"pair": "pedestrian:2"}, {"pair": "pedestrian:2", "inter_labels": []})


@pytest.mark.parametrize("entry", NO_PARTNER)
def test_an_entry_without_a_partner_is_skipped(entry: Any) -> None:
    frame = read({**person(1), "H-interaction": [entry]}, person(2))
    assert [(item.kind, item.item, item.reason) for item in frame.skipped] == [("pair", "1", "pair_format")]


@pytest.mark.parametrize("entry", NO_LABELS)
def test_a_pair_without_labels_is_skipped(entry: Any) -> None:
    frame = read({**person(1), "H-interaction": [entry]}, person(2))
    assert (frame.pairs, reasons(frame)) == ({}, {("pair", "1-2"): "pair_format"})


@pytest.mark.parametrize("level", ["no", -1, 0, 0.0, 0.5, True, False, None, float("nan"), float("inf"), [1]])
def test_r18_a_label_whose_value_is_not_a_level_makes_its_pair_malformed(level: Any) -> None:
    entry = {"pair": "pedestrian:2", "inter_labels": {"walking together": 1, "conversation": level}}
    frame = read({**person(1), "H-interaction": [entry]}, person(2))
    assert (frame.pairs, reasons(frame)) == ({}, {("pair", "1-2"): "pair_format"})


@pytest.mark.parametrize("sound_first", [True, False])
def test_r22_a_pair_with_a_sound_and_a_malformed_mention_is_counted_once(sound_first: bool) -> None:
    malformed = {**person(2), "H-interaction": [{"pair": "pedestrian:1", "inter_labels": {"conversation": "no"}}]}
    people = [person(1, mentions={2: ["walking together"]}), malformed, person(3, mentions={1: ["conversation"]})]
    frame = read(*(people if sound_first else people[::-1]))
    assert list(frame.pairs.values()) == [("conversation",)]
    assert [(item.kind, item.item, item.reason) for item in frame.skipped] == [("pair", "1-2", "pair_format")]


def test_pairs_with_objects_that_are_not_pedestrians_are_told_apart() -> None:
    entries = [{"pair": name, "inter_labels": {"looking at robot together": 1}} for name in ("robot:1", "robot:2")]
    frame = read({**person(1), "H-interaction": [*entries, entries[0]]}, {**person(2), "label_id": "robot:1"})
    assert [(item.item, item.reason) for item in frame.skipped] == [
        ("1-robot:1", "missing_partner"),
        ("1-robot:2", "missing_partner"),
    ]


def test_r22_a_pair_has_the_labels_of_both_mentions() -> None:
    frame = read(
        person(1, mentions={2: ["walking together"]}),
        person(2, mentions={1: ["conversation"], 3: ["standing together"]}),
        person(3),
    )
    assert frame.pairs == {(0, 1): ("conversation", "walking together"), (1, 2): ("standing together",)}
    assert frame.skipped == []


def test_r22_the_numbers_of_labels_are_difficulty_levels() -> None:
    first, second = person(1, mentions={2: ["walking together"]}), person(2, mentions={1: ["walking together"]})
    first["H-interaction"][0]["inter_labels"]["walking together"] = 3
    second["H-interaction"][0]["inter_labels"] |= {"walking together": 2, "conversation": 1.0}
    frame = read(first, second)
    assert frame.pairs == {(0, 1): ("conversation", "walking together")}
    assert frame.skipped == []


@given(st.text(max_size=300))
def test_printable_text_can_be_encoded(text: str) -> None:
    assert len(printable(text).encode()) <= 4 * 200


NUMBERS = st.integers(0, 3)
GOOD_BOX = st.just([1, 2, 3, 4])
BAD_BOX = st.sampled_from([[0, 0, 0, 1], None, [1, 2, "3", 4], [1, 2, -3, 4]])
MENTIONS = st.dictionaries(st.integers(0, 4), st.sampled_from([["walking together"], ["conversation"]]), max_size=3)
PEOPLE = st.lists(st.builds(person, NUMBERS, GOOD_BOX | BAD_BOX, MENTIONS), max_size=5)


@settings(max_examples=300)
@given(PEOPLE)
def test_each_person_and_each_pair_is_read_or_skipped_once(people: list[dict[str, Any]]) -> None:
    frame = read_objects("s", "f", people)
    skipped = Counter(item.kind for item in frame.skipped)
    assert len(frame.ids) + skipped["person"] == len(people)
    mentioned = set()
    for item in people:
        one = int(item["label_id"].split(":")[1])
        others = [int(entry["pair"].split(":")[1]) for entry in item["H-interaction"]]
        mentioned |= {(min(one, other), max(one, other)) for other in others}
    assert len(frame.pairs) + skipped["pair"] == len(mentioned)
    used = {tuple(sorted((frame.ids[a], frame.ids[b]))) for a, b in frame.pairs}
    skipped_pairs = [item.item for item in frame.skipped if item.kind == "pair"]
    assert sorted(f"{a}-{b}" for a, b in mentioned - used) == sorted(skipped_pairs)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "label_id": st.sampled_from(["pedestrian:1", "pedestrian:2", "car:1"]) | JSON,
        "box": GOOD_BOX | JSON | st.lists(st.integers() | st.floats() | st.booleans(), min_size=4, max_size=4),
        "H-interaction": JSON
        | st.lists(
            st.fixed_dictionaries(
                {}, optional={"pair": st.just("pedestrian:2") | JSON, "inter_labels": JSON | st.just({"\ud800": 1})}
            ),
            max_size=2,
        ),
    },
)


@settings(max_examples=300)
@given(st.lists(OBJECTS | JSON, max_size=4) | JSON)
def test_no_input_raises_and_all_results_can_be_encoded(objects: Any) -> None:
    frame = read_objects("scene", "frame", objects)
    for item in frame.skipped:
        item.to_json().encode()
        item.item.encode()
    for labels in frame.pairs.values():
        "".join(labels).encode()
    if isinstance(objects, list):
        people = sum(item.kind == "person" for item in frame.skipped) + len(frame.ids) + frame.other_objects
        assert people == len(objects)
