"""The input gateway: regular files only, limited sizes, no links where they are refused, and no waiting."""

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.read_file import is_no_access, open_file, read_file

SPECIAL: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "folder": Path.mkdir,
    "socket": lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
}


def test_the_bytes_of_a_file_are_returned(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_file(path, max_bytes=5) == b"12345"
    with open_file(path) as file:
        assert file.read() == b"12345"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_h4_only_regular_files_are_opened_and_nothing_waits(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    SPECIAL[kind](path)
    with pytest.raises(OSError, match="not a regular file"):
        read_file(path, max_bytes=100)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(OSError, match="not a regular file"):
        open_file(link)


def test_h4_descriptors_of_refused_files_are_closed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(OSError, match="not a regular file"):
            open_file(tmp_path / "f")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_h3_links_are_refused_where_the_caller_says_so(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "link").symlink_to("a")
    assert read_file(tmp_path / "link", max_bytes=9) == b"x"
    with pytest.raises(OSError, match="is a link"):
        read_file(tmp_path / "link", max_bytes=9, follow_links=False)
    assert read_file(tmp_path / "a", max_bytes=9, follow_links=False) == b"x"


def test_a_file_above_the_limit_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match=r"1,099,511,627,776 bytes, more than the 10 allowed"):
        read_file(path, max_bytes=10)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "n" * 300, "nowhere", ""])
def test_impossible_names_are_os_errors(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError):
        read_file(tmp_path / name, max_bytes=10)


def test_w9_errors_that_do_not_mean_damage() -> None:
    assert is_no_access(PermissionError(errno.EACCES, "x"))
    assert is_no_access(OSError(errno.EMFILE, "x"))
    assert not is_no_access(OSError(errno.EIO, "x"))
    assert not is_no_access(FileNotFoundError(errno.ENOENT, "x"))
    assert not is_no_access(ValueError("x"))
