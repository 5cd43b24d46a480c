"""Which pairs of a frame's people are asked about."""

import numpy as np

from extract.spatial import spatial_features
from store.shard import Shard
from store.tables import Floats, Ints

PAIRINGS = ("labelled", "near", "all")
NEAR = 1.0  # largest center_distance: the people's distance in the size of their boxes


def pairs_of(shard: Shard, people: Ints, pairing: str) -> tuple[Ints, Floats]:
    """(M, 2) person rows and (M, 8) spatial features of the pairs of a shard: annotated, near, or all of a frame.

    Args:
        people: (F,) how many people each frame has.
    """
    if pairing == "labelled":
        return shard.pair, shard.spatial
    spans = zip(shard.frame_offset, shard.frame_offset[1:], strict=False)
    by_frame = [np.stack(np.triu_indices(stop - start, 1), axis=1) + start for start, stop in spans]
    pair = np.concatenate([np.empty((0, 2), np.int64), *by_frame])
    frame = np.repeat(np.arange(len(by_frame)), [len(pairs) for pairs in by_frame])
    a, b = pair.T
    spatial = spatial_features(shard.box[a], shard.box[b], shard.frame_size[frame], people[frame])
    near = spatial[:, 5] <= NEAR if pairing == "near" else np.ones(len(pair), bool)
    return pair[near], spatial[near]
