"""Which pairs of people are predicted: the labelled ones, those near each other, or all."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from configs.errors import DataError
from configs.panorama import AUTO
from extract.annotations.spatial import spatial_features
from extract.units.plan import PlannedUnit
from store.format.ledger import MISSING_PARTNER, Ledger
from store.format.shard import Shard
from store.tables import PAIR, Floats, Ints

LABELLED = "labelled"
NEAR = 1.0  # largest center_distance of near pairs, in units of the size of their boxes

_log = logging.getLogger("stage2")


def choose_pairing(requested: str | None, units: Sequence[PlannedUnit], data_path: Path) -> str:
    """Returns `requested`; for None "labelled", or "near" if no pair is labelled, and logs which.

    Labels whose partner is not annotated in the frame (`missing_partner`) are not counted: they give no pair.

    Raises:
        DataError: "labelled" is requested, and no pair is labelled.
    """
    labelled = sum(
        unit.pairs - sum(item.kind == "pair" and item.reason == MISSING_PARTNER for item in unit.skipped)
        for unit in units
    )
    if requested is None and labelled:
        _log.info(
            "Predicting the %s labelled pairs (the default; --pairs near or all predicts others)", f"{labelled:,}"
        )
        return LABELLED
    if requested is None:
        _log.info("Predicting pairs of people near each other (--pairs near), because no pair in the data is labelled")
        return "near"
    if requested == LABELLED and not labelled:
        raise DataError(f"no pair in the selected frames of {data_path} is labelled; use --pairs near or all")
    return requested


def without_labelled_pairs(ledger: Ledger, pairs: int) -> Ledger:
    """`ledger` with the `pairs` pairs that are predicted in place of the labelled ones, sound or damaged."""
    skipped = {**ledger.skipped, PAIR: {}}
    reasons = {reason for counts in skipped.values() for reason in counts}
    examples = {reason: item for reason, item in ledger.examples.items() if reason in reasons}
    return Ledger({**ledger.planned, PAIR: pairs}, {**ledger.used, PAIR: pairs}, skipped, examples)


def candidate_pairs(shard: Shard, people: Ints, pairing: str, panorama: str = AUTO) -> tuple[Ints, Floats]:
    """Person rows (M, 2) and spatial features (M, 8) of the pairs to predict.

    Args:
        people: (F,) how many people each frame has.
        pairing: "labelled": the annotated pairs; "near": center_distance of at most NEAR; "all": all pairs of a frame.
        panorama: see `configs.panorama.edges_touch`.
    """
    if pairing == LABELLED:
        return shard.pair, shard.spatial
    spans = zip(shard.frame_offset, shard.frame_offset[1:], strict=False)
    by_frame = [np.stack(np.triu_indices(stop - start, 1), axis=1) + start for start, stop in spans]
    pair = np.concatenate([np.empty((0, 2), np.int64), *by_frame])
    frame = np.repeat(np.arange(len(by_frame)), [len(pairs) for pairs in by_frame])
    a, b = pair.T
    spatial = spatial_features(shard.box[a], shard.box[b], shard.frame_size[frame], people[frame], panorama)
    selected = spatial[:, 5] <= NEAR if pairing == "near" else np.ones(len(pair), bool)
    return pair[selected], spatial[selected]
