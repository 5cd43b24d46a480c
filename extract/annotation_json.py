"""Reads a JSON file of annotations, and refuses what a lenient parser would silently misread."""

import json
from pathlib import Path
from typing import Any

from configs.errors import DataError


def load_labels(data: bytes, path: Path) -> dict[str, Any]:
    """The frames of one scene file: frame name -> list of objects.

    A byte order mark is accepted. NaN and Infinity parse, so that the box that holds them can be named.

    Raises:
        DataError: no UTF-8, no JSON, too deep, a key twice in one object, or no {"labels": {...}}; the file is named.
    """
    try:
        document = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_no_duplicates)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except RecursionError as error:
        raise DataError(f"{path} is nested too deeply to be annotations; restore the file") from error
    except ValueError as error:
        raise DataError(f"{path} is no valid JSON ({error}); restore the file") from error
    if not isinstance(document, dict) or not isinstance(document.get("labels"), dict):
        raise DataError(f'{path} has no "labels" object that maps frames to people; restore the file')
    labels: dict[str, Any] = document["labels"]
    return labels


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return values
