"""How a new run takes the place of an earlier one in the same folder (`--overwrite`).

The new run is written to the folder STAGING in the run folder until it has its first checkpoint, so the earlier run
can be used until then. A rename of STAGING then decides that the new run is the run: after it the earlier run is
removed, and after a second rename the new run's files are moved to their places. If the process is killed in between,
the next command that opens the run completes this.
"""

from contextlib import suppress
from pathlib import Path

from classify.run_folder import RunFolder
from store.files import (
    exclusive_lock,
    fsync_folder,
    make_folder,
    move_entries,
    remove_file,
    remove_temporary_files,
    rename_entry,
    translate_os_errors,
)

CLEARING, MOVING = ".stage2-clearing", ".stage2-moving"  # names of STAGING after the first and the second rename


def stage(folder: RunFolder) -> None:
    """Directs the files of a new run to STAGING. Raises StorageError."""
    folder.staged = True
    make_folder(folder.path)


def replace_earlier_run(folder: RunFolder) -> None:
    """If the run replaces an earlier one and has not done so yet, it does so now; call it after each checkpoint.

    The first checkpoint of the first of several seeds replaces all of the earlier run.

    Raises:
        StorageError: the file system fails.
    """
    top = folder.parent or folder
    if top.staged:
        rename_entry(top.path, top.home / CLEARING)
        top.staged = False
        complete_replacement(top.home)


def complete_replacement(home: Path) -> None:
    """Completes a replacement that has been decided; does nothing if there is none. The caller has the lock."""
    clearing, moving = home / CLEARING, home / MOVING
    if clearing.is_dir():
        remove_run(RunFolder(home))
        rename_entry(clearing, moving)
    if moving.is_dir():
        move_entries(moving, home)
        with translate_os_errors(home):
            fsync_folder(home)


def find_run(path: Path) -> RunFolder:
    """The run in folder `path`, for reading; completes a replacement that a kill has interrupted.

    Raises:
        LockedError: a replacement is going on. StorageError: it cannot be completed.
    """
    folder = RunFolder(path)
    if (path / CLEARING).is_dir() or (path / MOVING).is_dir():
        with exclusive_lock(folder.marker):
            complete_replacement(path)
    return folder


def discard_staged(home: Path) -> None:
    """Removes what a run that was ended before its first checkpoint has left in STAGING."""
    staged = RunFolder(home, staged=True)
    if staged.path.is_dir():
        remove_run(staged)
        with suppress(OSError):  # it has files of somebody else
            staged.path.rmdir()


def remove_run(folder: RunFolder) -> None:
    """Removes the files of a run and of its seeds, and no other files. Raises StorageError."""
    with translate_os_errors(folder.path):
        for path in (*folder.files, folder.report):
            remove_temporary_files(path)
            remove_file(path)
    for seed in folder.seeds().values():
        remove_run(seed)
        remove_file(seed.marker)
        with suppress(OSError):  # it has files of somebody else
            seed.path.rmdir()
