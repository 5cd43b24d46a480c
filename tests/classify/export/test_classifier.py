"""The spatial features of the exported classifier equal those of every other command."""

from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from classify.export.classifier import pair_spatial
from extract.annotations.spatial import spatial_features

boxes = st.lists(
    st.tuples(st.floats(-900, 900), st.floats(-50, 500), st.floats(1, 800), st.floats(1, 800)), min_size=1, max_size=8
)


@given(boxes, boxes, st.integers(200, 4000), st.integers(60, 700), st.integers(1, 40))
def test_spatial_features_equal_numpys(one: Any, two: Any, width: int, height: int, people: int) -> None:
    count = min(len(one), len(two))
    box_a, box_b = (np.array(rows[:count], np.float32) for rows in (one, two))
    size, counts = np.tile([width, height], (count, 1)), np.full(count, people)
    expected = spatial_features(box_a, box_b, size, counts)
    actual = pair_spatial(*map(torch.from_numpy, (box_a, box_b, size, counts)))
    assert actual.dtype == torch.float32
    np.testing.assert_allclose(actual.numpy(), expected, rtol=2e-7, atol=1e-9)
