"""Exact nearest-neighbour search by cosine similarity, with FAISS."""

from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
from numpy.typing import NDArray

BLOCK = 512  # queries per search; bounds the memory, and is the share of work of one thread


def nearest(
    bank: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k rows of `bank` (N, D) that are most similar to each row of `queries` (Q, D).

    Args:
        k: at most N.

    Returns:
        Cosine similarities (Q, k), in descending order, and row numbers (Q, k) of `bank`. A row of zeros has
        similarity 0 to every row.
    """
    bank_rows = unit_rows(bank)

    def search(start: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Searches the array itself; a FAISS index would hold a second copy of it."""
        block = unit_rows(queries[start : start + BLOCK])
        found: tuple[NDArray[np.float32], NDArray[np.int64]]
        found = faiss.knn(block, bank_rows, k, metric=faiss.METRIC_INNER_PRODUCT)
        return found

    # Threads of FAISS that share one block wait for each other, which on busy cores doubles the time.
    with ThreadPoolExecutor(faiss.omp_get_max_threads(), initializer=faiss.omp_set_num_threads, initargs=(1,)) as pool:
        results = list(pool.map(search, range(0, len(queries), BLOCK)))
    if not results:
        return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
    return np.concatenate([similarity for similarity, _ in results]), np.concatenate([rows for _, rows in results])


def unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, D) float32 rows divided by their Euclidean length; rows of zeros stay zero."""
    length = np.sqrt(np.einsum("nd,nd->n", rows, rows))  # np.linalg.norm would allocate a copy for the squares
    return np.ascontiguousarray(rows / np.maximum(length, np.finfo(np.float32).tiny)[:, None], dtype=np.float32)
