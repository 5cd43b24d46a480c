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
    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(unit_rows(bank))
    found = [index.search(unit_rows(queries[at : at + BLOCK]), k) for at in range(0, len(queries), BLOCK)]
    similarity = np.concatenate([block[0] for block in found]) if found else np.empty((0, k), np.float32)
    rows = np.concatenate([block[1] for block in found]) if found else np.empty((0, k), np.int64)
    return similarity, rows


def unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, D) float32 rows divided by their length; rows of zeros stay zeros."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.maximum(length, np.finfo(np.float32).tiny), dtype=np.float32)
