"""The ledger of planned, used and skipped items: sums, examples, text, and what a store's files say of it."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import IntegrityError
from store.format.ledger import Ledger, damage_text
from store.format.shard import Skipped
from store.reader import store_info, store_ledger
from store.tables import AXES
from tests.stores import UNITS, make_plan, write_units

ITEMS = st.lists(
    st.builds(
        Skipped,
        kind=st.sampled_from(AXES),
        scene=st.sampled_from("ab"),
        frame=st.sampled_from("01"),
        item=st.just("7"),
        reason=st.sampled_from(("box_huge", "image_damaged", "missing_partner")),
    )
)


def ledger_of(items: list[Skipped], used: int = 5) -> Ledger:
    """A ledger of `used` used items of each kind and the skipped `items`."""
    counts = Counter(item.kind for item in items)
    return Ledger.of_items({kind: used + counts[kind] for kind in AXES}, dict.fromkeys(AXES, used), items)


@given(ITEMS, ITEMS)
def test_the_sum_of_two_ledgers_is_the_ledger_of_both(first: list[Skipped], second: list[Skipped]) -> None:
    total, together = ledger_of(first) + ledger_of(second), ledger_of(first + second, used=10)
    assert total.to_dict() == together.to_dict()
    assert total.lines() == together.lines()
    absent = sum(item.reason == "missing_partner" for item in first + second)
    assert total.damaged == len(first + second) - absent
    for kind in AXES:
        assert total.planned[kind] == total.used[kind] + sum(total.skipped[kind].values())
        assert sum(total.reasons(kind).values()) <= sum(total.skipped[kind].values())


def test_r3_counts_that_do_not_add_up_are_refused() -> None:
    sound = ledger_of([Skipped("pair", "a", "0", "1-2", "self_pair")])
    with pytest.raises(IntegrityError, match="6 pairs were planned, but 4 used and 1 skipped"):
        replace(sound, used={**sound.used, "pair": 4})


def test_the_lines_name_counts_and_the_first_example_of_each_reason() -> None:
    items = [
        Skipped("frame", "cafe", "3.jpg", "", "image_damaged", "its data ends early"),
        Skipped("person", "cafe", "3.jpg", "8", "image_damaged", "not this one"),
        Skipped("pair", "hall", "1.jpg", "4-9", "missing_partner"),
    ]
    assert ledger_of(items).lines() == [
        "Data: 5 of 6 frames, 5 of 6 people, 5 of 6 pairs are used.",
        "  skipped: image_damaged: 1 frames, 1 people; the first: cafe 3.jpg (its data ends early)",
        "  skipped: missing_partner, not damage: 1 pairs; the first: hall 1.jpg pair 4-9",
    ]
    assert damage_text(ledger_of(items).to_dict()) == (
        "Finished, but 2 damaged frames, people and pairs were skipped (image_damaged 2)."
    )
    assert damage_text(ledger_of(items[2:]).to_dict()) == ""


def test_what_was_found_is_neither_stored_nor_part_of_a_digest() -> None:
    plain, found = (Skipped("person", "a", "0", "1", "box_huge", value) for value in ("", "[9e9]"))
    assert plain == found
    assert (repr(plain), plain.to_json()) == (repr(found), found.to_json())
    assert plain.to_json() == ('{"frame": "0", "item": "1", "kind": "person", "reason": "box_huge", "scene": "a"}')


def test_the_ledger_of_a_store_has_its_counts_and_examples(tmp_path: Path) -> None:
    store = tmp_path / "a.store"
    write_units(store, make_plan())
    ledger, info = store_ledger(store), store_info(store)
    assert {f"{kind}s": ledger.planned[kind] for kind in AXES} == info["planned"]
    assert {f"{kind}s": ledger.used[kind] for kind in AXES} == info["stored"]
    assert (ledger.by_reason(), ledger.damaged) == ({"box_huge": UNITS}, UNITS)
    assert (info["skipped"], info["damaged"]) == ({"box_huge": UNITS}, UNITS)
    assert ledger.examples == {"box_huge": Skipped("person", "scene0", "0.jpg", "9", "box_huge")}
    assert ledger.examples["box_huge"].text() == "scene0 0.jpg person 9"


@pytest.mark.parametrize("text", [None, b"", b"no json\n", b'{"kind": "frame"}\n', b'["box_huge"]\n', b"\xff\n"])
def test_a_damaged_list_of_skipped_items_costs_only_the_examples(tmp_path: Path, text: bytes | None) -> None:
    store = tmp_path / "a.store"
    write_units(store, make_plan())
    if text is None:
        (store / "skipped.jsonl").unlink()
    else:
        (store / "skipped.jsonl").write_bytes(text)
    ledger = store_ledger(store)
    assert (ledger.by_reason(), ledger.examples) == ({"box_huge": UNITS}, {})


def test_an_unfinished_store_has_the_ledger_of_its_finished_units(tmp_path: Path) -> None:
    write_units(tmp_path / "a.store", make_plan(), limit=2)
    assert store_info(tmp_path / "a.store")["damaged"] == 0  # STORE.json does not name the shards yet
