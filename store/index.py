"""Exact nearest neighbours by FAISS."""

import faiss
import numpy as np
from numpy.typing import NDArray

BLOCK = 4096  # queries at a time, so that memory stays bounded


def nearest(
    bank: NDArray[np.float32], queries: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Cosine similarity (Q, k) and rows (Q, k) of the k nearest of `bank` (N, D) to each of `queries` (Q, D).

    The most similar stands first. `k` is at most N; a row of zeros is similar to nothing, 0.
    """
    bank_rows = unit_rows(bank)  # searched where they lie: an index would keep a copy
    blocks = (unit_rows(queries[at : at + BLOCK]) for at in range(0, len(queries), BLOCK))
    found = [faiss.knn(block, bank_rows, k, metric=faiss.METRIC_INNER_PRODUCT) for block in blocks]
    similarity = np.concatenate([near[0] for near in found]) if found else np.empty((0, k), np.float32)
    rows = np.concatenate([near[1] for near in found]) if found else np.empty((0, k), np.int64)
    return similarity, rows


def unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, D) float32 rows divided by their length; rows of zeros stay zeros."""
    length = np.sqrt(np.einsum("nd,nd->n", rows, rows))  # `norm` would square into a copy
    return np.ascontiguousarray(rows / np.maximum(length, np.finfo(np.float32).tiny)[:, None], dtype=np.float32)
