"""Every column is declared, and splitting undoes joining."""

from dataclasses import fields, replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from store.format.shard import Shard, join_tables, slice_shard
from store.tables import COLUMNS, FRAME, PAIR, PERSON, Tables, column_names, join_rows
from tests.stores import SHARD_SIZES, assert_same_shard, make_shard


def test_every_array_of_tables_and_shards_is_a_declared_column() -> None:
    other_fields = {"scenes", "scene", "label_sets", "skipped", "attributes"}
    for table in (Tables, Shard):
        assert {item.name for item in fields(table)} - other_fields == set(column_names(table))
    assert set(COLUMNS) == {*column_names(Tables), *column_names(Shard)}


@given(st.lists(SHARD_SIZES, min_size=1, max_size=3))
def test_slices_of_joined_shards_are_the_shards(sizes: list[tuple[int, ...]]) -> None:
    shards = [replace(make_shard(*size), scene=f"scene{n}", visual_flipped=None) for n, size in enumerate(sizes)]
    tables = join_tables(tuple(shard.scene for shard in shards), shards)
    whole = Shard.from_tables(
        tables,
        scene="",
        visual=join_rows("visual", [shard.visual for shard in shards]),
        visual_flipped=None,
        frame_sha256=join_rows("frame_sha256", [shard.frame_sha256 for shard in shards]),
        skipped=(),
    )
    ends = np.cumsum([[len(s.frame_name), len(s.box), len(s.pair)] for s in shards], axis=0)
    starts = np.concatenate([[[0, 0, 0]], ends[:-1]])
    for shard, start, end in zip(shards, starts, ends, strict=True):
        rows = {axis: slice(*bounds) for axis, *bounds in zip((FRAME, PERSON, PAIR), start, end, strict=True)}
        part = slice_shard(whole, rows)
        labels = [part.label_sets[label] for label in part.label]
        assert labels == [shard.label_sets[label] for label in shard.label]
        own = {"scene": shard.scene, "skipped": shard.skipped, "attributes": shard.attributes}
        own |= {"label": shard.label, "label_sets": shard.label_sets}
        assert_same_shard(replace(part, **own), shard)  # type: ignore[arg-type]
