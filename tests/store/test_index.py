"""Exact nearest neighbours against scikit-learn."""

import faiss
import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from store.index import BLOCK, nearest


def test_nearest_neighbours_equal_brute_force() -> None:
    rng = np.random.default_rng(0)
    bank, queries = rng.normal(size=(300, 20)).astype(np.float32), rng.normal(size=(50, 20)).astype(np.float32)
    similarity, rows = nearest(bank, queries, 7)
    exact = NearestNeighbors(n_neighbors=7, metric="cosine", algorithm="brute").fit(bank)
    distance, expected = exact.kneighbors(queries)
    assert np.array_equal(rows, expected)
    assert similarity == pytest.approx(1 - distance, abs=1e-5)


def test_neighbours_do_not_depend_on_the_number_of_threads() -> None:
    """And searching does not change how many threads FAISS uses elsewhere."""
    rng = np.random.default_rng(1)
    bank = rng.normal(size=(400, 64)).astype(np.float32)
    queries = rng.normal(size=(2 * BLOCK + 100, 64)).astype(np.float32)
    threads = faiss.omp_get_max_threads()
    try:
        results = []
        for count in (1, 3):
            faiss.omp_set_num_threads(count)
            results.append(nearest(bank, queries, 9))
            assert faiss.omp_get_max_threads() == count
    finally:
        faiss.omp_set_num_threads(threads)
    for one, three in zip(*results, strict=True):
        assert np.array_equal(one, three)  # bit by bit


def test_no_query_has_no_neighbours() -> None:
    similarity, rows = nearest(np.ones((3, 2), np.float32), np.empty((0, 2), np.float32), 2)
    assert similarity.shape == rows.shape == (0, 2)
