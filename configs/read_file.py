"""Opens files that other programs may have written: the only way in which this project reads them.

A path is opened without waiting and must be a regular file: opening a FIFO would block the command for ever, and a
device may never end. The number of bytes is limited. In run folders, which people pass on, links are not followed, so
that a folder from elsewhere cannot lead to another file of this machine. `tests/test_readers.py` finds other readers.
"""

import errno
import io
import os
import stat
from pathlib import Path

MIB, GIB = 2**20, 2**30
# The most bytes that a file may have; far more than any that this project or its users write.
SETTINGS_BYTES = 16 * MIB
DOCUMENT_BYTES = 64 * MIB  # final_results.json, compare_row.json, plots
MANIFEST_BYTES = GIB  # STORE.json, skipped.jsonl
ANNOTATION_BYTES = GIB  # of one scene
TENSOR_BYTES = 64 * GIB  # checkpoints and weights
SHARD_BYTES = 256 * GIB
PACKED_BYTES = 2**50  # a packed store is as large as its features

# The file may be intact, but this process cannot read it now: no permission, too many open files, out of memory.
_NO_ACCESS = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def open_file(path: Path, *, follow_links: bool = True) -> io.BufferedReader:
    """As `open_descriptor`, but returns a file; close it, or use it in a `with` block."""
    return os.fdopen(open_descriptor(path, follow_links=follow_links), "rb")


def open_descriptor(path: Path, *, follow_links: bool = True) -> int:
    """Opens the regular file `path` for reading and returns its descriptor, which the caller closes.

    Args:
        follow_links: False to refuse `path` if it is a link itself; links among its folders are followed.

    Raises:
        OSError: the file cannot be opened, is not a regular file or is a link; `strerror` is a text for people.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except ValueError as error:  # NUL or a lone surrogate in the name
        raise OSError(errno.EINVAL, f"its name is not possible: {error}", ascii(str(path))) from error
    except OSError as error:
        if error.errno == errno.ELOOP and not follow_links:
            raise OSError(errno.ELOOP, "it is a link, which is not followed here", str(path)) from error
        if error.errno == errno.ENXIO:  # a socket
            raise OSError(errno.EINVAL, "it is not a regular file", str(path)) from error
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_file(path: Path, *, max_bytes: int, follow_links: bool = True) -> bytes:
    """All bytes of the regular file `path`.

    Raises:
        OSError: as `open_file`, or the file has more than `max_bytes` bytes.
    """
    with open_file(path, follow_links=follow_links) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read() if size <= max_bytes else b""
    if max(size, len(data)) > max_bytes:
        size = max(size, len(data))
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, more than the {max_bytes:,} allowed", str(path))
    return data


def is_no_access(error: BaseException) -> bool:
    """Whether reading failed although the file may be intact, so that it must not be treated as damaged."""
    return isinstance(error, OSError) and error.errno in _NO_ACCESS
