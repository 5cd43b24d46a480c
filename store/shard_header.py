"""What stands before a shard's HDF5 file: where in it each array lies, so that a reader need not ask HDF5.

HDF5 takes a millisecond or two to open a dozen datasets, a third of the time in which a shard is read and hashed. It
allows a block of the user's own before its first byte, of 512 bytes or a power of two above. Ours is a line of text
and a JSON object, padded; the shard's sha256 covers it like all the rest.
"""

import json
import re
from typing import Any

import numpy as np

from store.place import Place, Places

_FIRST = re.compile(rb"stage2 shard 1 ([0-9]{8})\n")  # bytes of the block; HDF5 begins there
_LENGTH = len("stage2 shard 1 00000512\n")
_TYPE = re.compile(r"<f[248]|<i[48]|\|u1|\|S[1-9][0-9]{0,6}")


def header_of(places: Places) -> bytes:
    """The block for a file whose arrays lie at `places`."""
    arrays = {key: [place.dtype.str, place.shape, place.offset] for key, place in places.arrays.items()}
    text = json.dumps({"arrays": arrays, "attributes": places.attributes}, sort_keys=True).encode()
    size = 512
    while size < _LENGTH + len(text):
        size *= 2
    return f"stage2 shard 1 {size:08d}\n".encode() + text.ljust(size - _LENGTH, b"\0")


def read_header(image: bytes) -> Places | None:
    """What the block at the start of `image` says, offsets from its first byte; None where there is no such block.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, RecursionError: the block is not as `header_of` makes it.
    """
    first = _FIRST.match(image)
    if first is None:
        return None
    size = int(first[1])
    values = json.loads(image[_LENGTH:size].rstrip(b"\0"))
    attributes = values["attributes"]
    for text in attributes.values():
        text.encode()  # lone surrogates are no text either
    return Places({key: _place(key, entry, size) for key, entry in values["arrays"].items()}, attributes)


def _place(key: str, entry: list[Any], start: int) -> Place:
    dtype, shape, offset = entry
    counts = [*shape] if offset is None else [*shape, offset]
    if not _TYPE.fullmatch(dtype) or not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError(f"{key} is described as nothing that a store has")
    return Place(np.dtype(dtype), tuple(shape), None if offset is None else start + offset)
