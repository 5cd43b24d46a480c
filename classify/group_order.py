"""The order of end-to-end training: pairs that share a person are drawn together, so that a batch forwards her once."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def groups_of(pairs: NDArray[np.int64]) -> Tensor:
    """(m,) int64 the group, from 0, of each of the pairs (m, 2): two that a chain of shared persons links have one."""
    _, rows = np.unique(pairs, return_inverse=True)
    rows = rows.reshape(pairs.shape)
    group = np.arange(rows.max() + 1)  # of each person: the first person that is known to be linked
    while True:
        first = group[rows].min(axis=1)
        linked = group.copy()
        for side in rows.T:
            np.minimum.at(linked, side, first)
        if np.array_equal(linked, group):
            break
        group = linked
    return torch.from_numpy(np.unique(group[rows[:, 0]], return_inverse=True)[1].reshape(-1))


def draw_groups(groups: Tensor, generator: torch.Generator) -> Tensor:
    """(m,) int64, a permutation of the samples with those of each group together, in random order too.

    The groups of a batch come from many frames: as mixed as can be while hardly a person is forwarded twice.
    """
    place = torch.randperm(int(groups.max()) + 1, generator=generator)
    within = torch.randperm(len(groups), generator=generator)
    return torch.argsort(place[groups] * len(groups) + within)
