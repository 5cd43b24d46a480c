"""Exact nearest-neighbour search by cosine similarity, with FAISS."""

import faiss
import numpy as np
from numpy.typing import NDArray

BLOCK = 4096  # queries per search; bounds the memory


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
    blocks = (unit_rows(queries[at : at + BLOCK]) for at in range(0, len(queries), BLOCK))
    # knn searches the array itself; a FAISS index would hold a second copy of it
    results = [faiss.knn(block, bank_rows, k, metric=faiss.METRIC_INNER_PRODUCT) for block in blocks]
    if not results:
        return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
    return np.concatenate([similarity for similarity, _ in results]), np.concatenate([rows for _, rows in results])


def unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, D) float32 rows divided by their Euclidean length; rows of zeros stay zero."""
    length = np.sqrt(np.einsum("nd,nd->n", rows, rows))  # np.linalg.norm would allocate a copy for the squares
    return np.ascontiguousarray(rows / np.maximum(length, np.finfo(np.float32).tiny)[:, None], dtype=np.float32)
