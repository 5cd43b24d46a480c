"""Explains a --data_path without annotations: a missing folder, or a folder of another level of the data set."""

from difflib import get_close_matches
from pathlib import Path

_LEVELS = 3  # folders above --data_path that are tried
_DEPTH = 2  # levels of folders inside --data_path that are tried
_ENTRIES = 200  # of one folder that are tried
_LISTED = 4  # names in a message


def explain_missing_annotations(data_path: Path, labels: Path) -> str:
    """One sentence that says what is missing under `data_path`, and names the right folder if it is near.

    Args:
        labels: the folder of annotations below a data folder.
    """
    if not data_path.exists():
        near = get_close_matches(data_path.name, _entries(data_path.parent), n=1)
        suggestion = f"; did you mean {data_path.parent / near[0]}?" if near else "; check --data_path"
        return f"the data folder {data_path} does not exist{suggestion}"
    expected = f"{data_path / labels} contains no annotations (<scene>.json)"
    above = [folder for folder in list(data_path.resolve().parents)[:_LEVELS] if _has_annotations(folder, labels)]
    if above:
        return f"{expected}, but {above[0] / labels} does; give --data_path {above[0]}"
    inside = _folders_inside(data_path, labels, _DEPTH)
    if len(inside) == 1:
        return f"{expected}, but {inside[0] / labels} does; give --data_path {inside[0]}"
    if inside:
        return f"{expected}; --data_path is too high: choose one of {_list_some(inside)}"
    return f"{expected}{_what_is_there(data_path, labels)}; check --data_path, which contains images/ and labels/"


def _folders_inside(folder: Path, labels: Path, depth: int) -> list[Path]:
    """The data folders in `folder`, or else in its folders, down to `depth` levels."""
    folders = [folder / name for name in _entries(folder)]
    inside = [path for path in folders if _has_annotations(path, labels)]
    if inside or depth == 1:
        return inside
    return [found for path in folders if path.is_dir() for found in _folders_inside(path, labels, depth - 1)]


def _what_is_there(data_path: Path, labels: Path) -> str:
    """Which part of the path to the annotations is missing, and what is in its place."""
    folder = data_path
    for part in labels.parts:
        if not (folder / part).is_dir():
            there = _entries(folder)
            return f": {folder} has no folder {part}/, it contains {_list_some(there)}" if there else ""
        folder /= part
    return ""


def _entries(folder: Path) -> list[str]:
    """The names in `folder` without hidden ones; none if it cannot be read."""
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))[:_ENTRIES]
    except OSError:
        return []


def _list_some(names: list[str] | list[Path]) -> str:
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(map(str, names[:_LISTED])) + rest


def _has_annotations(folder: Path, labels: Path) -> bool:
    try:
        return any((folder / labels).glob("[!.]*.json"))
    except OSError:
        return False
