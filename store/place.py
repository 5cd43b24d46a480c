"""Where in a shard's bytes each of its arrays lies, however that was found out, and the arrays as views of them."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Place:
    """One array, in one piece."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int | None  # of its first byte; None where nothing is stored


@dataclass(frozen=True)
class Places:
    """The arrays and the attributes of a shard."""

    arrays: dict[str, Place]
    attributes: dict[str, str]


def view(image: bytes, key: str, place: Place, kinds: str, rank: int) -> NDArray[Any]:
    """The array `key` as a read-only view of `image`.

    Raises:
        ValueError: it is not of one of those kinds of number and that rank, or not all of it is there.
    """
    dtype, shape, offset = place.dtype, place.shape, place.offset
    if dtype.kind not in kinds or len(shape) != rank:
        raise ValueError(f"{key} has type {dtype} and rank {len(shape)}")
    count = math.prod(shape)
    if count == 0:
        return np.empty(shape, dtype)
    if offset is None or offset + count * dtype.itemsize > len(image):
        raise ValueError(f"{key} is declared and not stored")
    return np.frombuffer(image, dtype, count, offset).reshape(shape)
