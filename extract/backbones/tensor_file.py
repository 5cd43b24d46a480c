"""Reads the tensors and plain values of torch.save files from elsewhere, without running code out of them.

torch's loader for weights alone still lets a small file ask for much memory: a compressed archive, a pickle that calls
`torch.Tensor(10**12)` or `bytearray(10**12)`, a storage or a tensor that declares more elements than are stored. So the
bytes are inspected first: archives must be uncompressed, pickles may name only what `torch.save` writes for tensors,
and nothing may declare more elements than the file has bytes.
"""

import io
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError  # only to catch it: files are read by torch's safe loader alone
from typing import Any

import torch
from torch import Tensor

from configs.read_file import TENSOR_BYTES, read_file

# what zipfile, pickletools and torch.load raise for damaged and malicious files, determined by fuzzing
_LOAD_ERRORS: tuple[type[Exception], ...] = (
    *(OSError, RuntimeError, EOFError, LookupError, TypeError, AttributeError, ValueError, ArithmeticError),
    *(AssertionError, ImportError, MemoryError, BufferError, UnpicklingError, struct.error, zipfile.BadZipFile),
)
_ZIP_START = b"PK\x03\x04"
_LEGACY_PICKLES = 5  # magic number, protocol, system, content, keys of the storages; then the storages
# What pickles may name. Left out are those that allocate: tensor classes, bytearray, quantised tensors, codecs.
_NAMES = re.compile(
    r"collections (OrderedDict|Counter)|(builtins|__builtin__) (set|complex)|"
    r"torch (Size|device|bool|bfloat16|(?!Untyped|Typed)\w+Storage|(u?int|float|complex)\d\w*)|"
    r"torch\.nn\.parameter Parameter|torch\.serialization _get_layout|"
    r"torch\._utils _rebuild_(parameter|tensor|tensor_v2|tensor_v3|sparse_tensor|meta_tensor_no_storage)|"
    r"torch\._utils _rebuild_parameter_with_state|torch\._tensor _rebuild_from_type_v2"
)


def read_tensor_file(path: Path, *, follow_links: bool = True) -> Any:
    """Reads the tensors and plain values of a torch.save file to the CPU.

    Args:
        follow_links: False to refuse a link as `path`, for files in run folders.

    Raises:
        ValueError: the file is missing, damaged or not a regular file, contains other objects than tensors and plain
            values, or declares more data than it stores.
    """
    try:
        data = read_file(path, max_bytes=TENSOR_BYTES, follow_links=follow_links)
    except FileNotFoundError as error:
        raise ValueError("there is no such file") from error
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    return parse_tensor_file(data)


def parse_tensor_file(data: bytes) -> Any:
    """As `read_tensor_file`, for the bytes of a file."""
    try:
        for pickled in _pickles(data):
            _check_pickle(pickled, len(data))
        with warnings.catch_warnings():  # torch warns about unusual but valid files
            warnings.simplefilter("ignore")
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        check_tensors(content, len(data))
    except _LOAD_ERRORS as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise ValueError(reason) from error
    return content


def _pickles(data: bytes) -> Iterator[io.BytesIO]:
    """The pickles in a file, each positioned at its start, in PyTorch's zip format or in the older one."""
    if data.startswith(_ZIP_START):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("it is compressed, which torch.save does not do; save it again")
            if sum(entry.file_size for entry in entries) > len(data):
                raise ValueError("it declares more data than it has bytes")
            yield from (io.BytesIO(archive.read(entry)) for entry in entries if entry.filename.endswith(".pkl"))
        return
    stream = io.BytesIO(data)
    for _ in range(_LEGACY_PICKLES):
        yield stream  # `_check_pickle` reads up to the start of the next one


def _check_pickle(stream: io.BytesIO, size: int) -> None:
    """Checks names and element counts of the pickle at the position of `stream`, and moves behind it.

    Raises:
        ValueError: it names what `torch.save` does not write for tensors, or a storage with over `size` elements.
    """
    number = 0  # the last integer; that of a storage is its number of elements
    for operation, argument, _ in pickletools.genops(stream):
        if operation.name in ("GLOBAL", "INST", "STACK_GLOBAL") and not _NAMES.fullmatch(str(argument)):
            raise ValueError(f"it contains {str(argument)!a}, not only tensors and plain values")
        if type(argument) is int and operation.name in ("BININT", "BININT1", "BININT2", "LONG1"):
            number = argument
        if operation.name == "BINPERSID" and not 0 <= number <= size:
            raise ValueError(f"it declares {number:,} elements, but has {size:,} bytes")


def check_tensors(content: Any, size: int) -> None:
    """Checks that no tensor anywhere in `content` has more elements than its storage; reads no element.

    Args:
        size: bytes of the file that `content` is from; all storages together may not be larger.

    Raises:
        ValueError: a tensor or the storages are larger.
    """
    storages: dict[int, int] = {}
    for name, tensor in _tensors(content):
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            continue  # refused by name later; it has no elements in memory
        storage = tensor.untyped_storage()
        needed, stored = tensor.numel() * tensor.element_size(), storage.nbytes()
        if needed > stored:
            raise ValueError(f"{name} declares {needed:,} bytes, but {stored:,} are stored")
        storages[storage.data_ptr()] = stored
    if sum(storages.values()) > size:
        raise ValueError(f"its tensors declare {sum(storages.values()):,} bytes, but it has {size:,}")


def _tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested dicts, lists and tuples, with the key or index that it has."""
    seen: set[int] = set()
    waiting: list[tuple[str, Any]] = [("the content", content)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(str(key)[:100], item) for key, item in items]
