"""Checks the files and folders that a user names as outputs before anything is written to them."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from configs.errors import ConfigError
from store.ownership import is_marked, is_unused


def claim_file(path: Path, *, overwrite: bool, inputs: Iterable[Path] = ()) -> None:
    """Checks that a command may write the file `path`.

    Args:
        overwrite: whether an existing regular file may be replaced.
        inputs: files and folders that the command reads; `path` may not be one of them or be inside one of them.

    Raises:
        ConfigError: the file exists and `overwrite` is not set; it is a link, a folder or a device; or it is an input.
    """
    _check_outside(path, inputs)
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
        ConfigError: the path is not a folder; it is or is inside an input; or it has files and `overwrite` is not set.
    """
    _check_outside(path, inputs)
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


def _check_outside(path: Path, inputs: Iterable[Path]) -> None:
    resolved = path.resolve()
    for source in inputs:
        if resolved.is_relative_to(source.resolve()):
            where = "an input of this command" if resolved == source.resolve() else f"inside {source}, an input"
            raise ConfigError(f"{path} is {where}; name an output elsewhere")


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a link"
    return "a folder" if stat.S_ISDIR(mode) else "a device, a pipe or a socket"
