"""Exact nearest neighbours against scikit-learn."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from store.index import nearest


def test_nearest_neighbours_equal_brute_force() -> None:
    rng = np.random.default_rng(0)
    bank, queries = rng.normal(size=(300, 20)).astype(np.float32), rng.normal(size=(50, 20)).astype(np.float32)
    similarity, rows = nearest(bank, queries, 7)
    exact = NearestNeighbors(n_neighbors=7, metric="cosine", algorithm="brute").fit(bank)
    distance, expected = exact.kneighbors(queries)
    assert np.array_equal(rows, expected)
    assert similarity == pytest.approx(1 - distance, abs=1e-5)
