"""A loader to be fuzzed."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import Stage2Error


@dataclass(frozen=True)
class Loader:
    """`load` reads `path`.

    `intact` are the bytes of files that it accepts. `values` are the same as plain values, which are changed too and
    encoded to bytes by `encode`: changed bytes seldom pass a checksum.
    """

    path: Path
    load: Callable[[], object]
    intact: tuple[bytes, ...]
    errors: type[Exception] = Stage2Error
    values: tuple[Any, ...] = ()
    encode: Callable[[Any], bytes] = bytes


def json_loader(path: Path, load: Callable[[], object], *values: Any) -> Loader:
    """The loader of a JSON file."""
    return Loader(path, load, tuple(encode_json(value) for value in values), values=values, encode=encode_json)


def encode_json(value: Any) -> bytes:
    """JSON text; NaN and infinity as Python writes them."""
    return json.dumps(value).encode()
