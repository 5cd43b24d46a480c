"""Explains a --data_path without annotations: a missing folder, or a folder of another level of the data set."""

from pathlib import Path

_LEVELS = 3  # folders above --data_path that are tried


def explain_missing_annotations(data_path: Path, labels: Path) -> str:
    """One sentence that says what is missing under `data_path`, and names the right folder if it is near.

    Args:
        labels: the folder of annotations below a data folder.
    """
    if not data_path.exists():
        return f"the data folder {data_path} does not exist; check --data_path"
    expected = f"{data_path / labels} contains no annotations (<scene>.json)"
    near = _near_folders(data_path, labels)
    if len(near) == 1:
        return f"{expected}, but {near[0] / labels} does; give --data_path {near[0]}"
    if near:
        return f"{expected}; --data_path is one level too high: choose one of {', '.join(map(str, near))}"
    return f"{expected}; check --data_path, which is the folder that contains images/ and labels/"


def _near_folders(data_path: Path, labels: Path) -> list[Path]:
    """The folders with annotations up to _LEVELS above `data_path`, or directly inside it."""
    above = [folder for folder in list(data_path.resolve().parents)[:_LEVELS] if _has_annotations(folder, labels)]
    try:
        inside = sorted(folder for folder in data_path.iterdir() if _has_annotations(folder, labels))
    except OSError:  # it may not be read
        inside = []
    return above[:1] or inside


def _has_annotations(folder: Path, labels: Path) -> bool:
    try:
        return any((folder / labels).glob("[!.]*.json"))
    except OSError:
        return False
