"""Checks the files and folders that a user names as outputs before anything is written to them."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from configs.errors import ConfigError
from store.format.paths import StorePaths
from store.ownership import MARKER_PREFIX, RUN, RUN_MARKER, STORE, is_marked, is_unused


def claim_file(path: Path, *, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Checks that a command may write the file `path`.

    Args:
        overwrite: whether an existing regular file may be replaced.
        inputs: files and folders that the command reads; `path` may not be one of them or be inside one of them.

    Raises:
        ConfigError: the file exists and `overwrite` is not set; it is a link, a folder or a device; it is an input; or
            it is inside a store, or inside a run folder that is not an input.
    """
    inputs = tuple(inputs)
    _check_outside(path, inputs)
    _check_outside_stores(path)
    _check_outside_runs(path, inputs)
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}); name another output") from error
    if not stat.S_ISREG(mode):
        raise ConfigError(f"{path} is {_kind(mode)}, not a regular file; name another output")
    if not overwrite:
        raise ConfigError(f"{path} already exists; give --overwrite to replace it, or name another output")


def claim_folder(path: Path, *, overwrite: bool = True, inputs: Iterable[Path] = ()) -> None:
    """Checks that a command may write files into the folder `path`.

    Args:
        overwrite: whether the folder may contain files already.
        inputs: as for `claim_file`.

    Raises:
        ConfigError: the path is not a folder; it is or is inside an input or a store; or it has files and `overwrite`
            is not set.
    """
    _check_outside(path, inputs)
    _check_outside_stores(path)
    if os.path.lexists(path) and not path.is_dir():
        raise ConfigError(f"{path} is not a folder; name another output folder")
    if not overwrite and path.is_dir() and any(path.iterdir()):
        raise ConfigError(f"{path} is not empty; give --overwrite to write into it, or name another output folder")


def claim_marked_folder(marker: Path, kind: str, option: str, inputs: Iterable[Path] = ()) -> None:
    """Checks that the folder of `marker` is missing, empty or marked as a `kind`; see `store.ownership`.

    Args:
        option: names the folder; for the message.
        inputs: as for `claim_file`.

    Raises:
        ConfigError: it is not; or it is not a folder, or is or is inside an input.
    """
    folder = marker.parent
    claim_folder(folder, inputs=inputs)
    if not is_marked(marker, kind) and not is_unused(marker, kind):
        raise ConfigError(
            f"{folder} has files, but stage2 did not make it for a {kind} (it has no {marker.name}); give another "
            f"{option}"
        )


def is_inside(path: Path, folder: Path) -> bool:
    """Whether `path` is `folder` or is inside it, links resolved."""
    return path.resolve().is_relative_to(folder.resolve())


def _check_outside(path: Path, inputs: Iterable[Path]) -> None:
    for source in inputs:
        if is_inside(path, source):
            where = "an input of this command" if is_inside(source, path) else f"inside {source}, an input"
            raise ConfigError(f"{path} is {where}; name an output elsewhere")


def _check_outside_stores(path: Path) -> None:
    resolved = path.resolve()
    for folder in (resolved, *resolved.parents):
        paths = StorePaths(folder)
        if paths.manifest.exists() or is_marked(paths.lock, STORE):
            raise ConfigError(f"{path} is inside the feature store {folder}; name an output elsewhere")


def _check_outside_runs(path: Path, inputs: Iterable[Path]) -> None:
    """Refuses to write among the files of a run, except beside those of a run that the command reads."""
    if any(part.startswith(MARKER_PREFIX) for part in path.parts):
        raise ConfigError(f"{path} has a name that stage2 uses for its own files; name an output elsewhere")
    allowed = {source.resolve().parent for source in inputs}
    for folder in path.resolve().parents:
        if folder not in allowed and is_marked(folder / RUN_MARKER, RUN):
            raise ConfigError(f"{path} is inside the run folder {folder}; name an output elsewhere")


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a link"
    return "a folder" if stat.S_ISDIR(mode) else "a device, a pipe or a socket"
