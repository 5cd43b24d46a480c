"""One file for a whole store: its flat tables as HDF5 datasets behind a header with STORE.json and a sha256.

Why flat tables and not the shards' bytes: whoever opens the file with h5py finds `visual`, `box`, `pair`, ... of all
frames, persons and pairs, one dataset each, and needs nothing of ours. Why one checksum over the whole: the file is
made to be copied, and a copy is whole or it is not. It is laid out as one large shard, so one reader serves both.

store.pack writes it. To be read it is held in memory: loading takes about twice its size.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate, islice
from pathlib import Path

from configs.errors import IntegrityError
from store.manifest import Manifest
from store.packed_header import REMEDY, read_whole
from store.shard import Shard, parse_shard
from store.unit_check import attributes_of


def read_packed(path: Path, manifest: Manifest) -> list[Shard]:
    """The shards of the packed store in file `path`, whose manifest is `manifest`.

    Raises:
        IntegrityError: the file does not match its checksum, or its rows are not those that STORE.json counts.
    """
    _, data = read_whole(path)
    return list(split(manifest, parse_shard(data, path.name), path))


def split(manifest: Manifest, whole: Shard, path: Path) -> Iterator[Shard]:
    """The rows of each unit, as views, renumbered. Raises IntegrityError where STORE.json counts others."""
    units = manifest.units
    ends = [
        list(accumulate((getattr(unit, f"stored_{kind}") for unit in units), initial=0))
        for kind in ("frames", "persons", "pairs")
    ]
    skipped = [sum(sum(reasons.values()) for reasons in unit.skipped.values()) for unit in units]
    held = [len(whole.frame_name), len(whole.visual), len(whole.pair), len(whole.skipped)]
    if held != [*(end[-1] for end in ends), sum(skipped)]:
        raise IntegrityError(f"{path} holds other rows than its STORE.json counts; {REMEDY}")
    items = iter(whole.skipped)
    for number, unit in enumerate(units):
        frames, persons, pairs = (slice(end[number], end[number + 1]) for end in ends)
        part = _rows(whole, frames, persons, pairs)
        if part.frame_offset[-1] != len(part.box) or ((part.pair < 0) | (part.pair >= len(part.box))).any():
            raise IntegrityError(f"{path} holds rows that reach out of their unit; {REMEDY}")
        mine = tuple(islice(items, skipped[number]))
        yield replace(part, scene=unit.scene, skipped=mine, attributes=attributes_of(manifest, unit))


def _rows(whole: Shard, frames: slice, persons: slice, pairs: slice) -> Shard:
    flipped = whole.visual_flipped
    return replace(
        whole,
        visual=whole.visual[persons],
        visual_flipped=None if flipped is None else flipped[persons],
        box=whole.box[persons],
        person_id=whole.person_id[persons],
        frame_name=whole.frame_name[frames],
        frame_index=whole.frame_index[frames],
        frame_size=whole.frame_size[frames],
        frame_offset=whole.frame_offset[frames.start : frames.stop + 1] - persons.start,
        frame_sha256=whole.frame_sha256[frames],
        pair=whole.pair[pairs] - persons.start,
        spatial=whole.spatial[pairs],
        label=whole.label[pairs],
    )
