"""Files are read through `configs/read_file.py` alone; other calls that open files are listed here with a reason."""

import ast
import re

import pytest

from tests.sources import PRODUCT

METHODS = {"read_bytes", "read_text", "open", "fromfile", "memmap"}
FUNCTIONS = {
    *("open", "io.open", "io.FileIO", "FileIO", "os.open", "os.fdopen", "json.load", "tomllib.load", "torch.load"),
    *("np.load", "np.loadtxt", "np.fromfile", "np.memmap", "h5py.File", "safe_open", "onnx.load", "read_image"),
    *("torch.jit.load", "torch.export.load", "decode_image", "zipfile.ZipFile", "tarfile.open", "mmap.mmap"),
}
NO_READING = re.compile(r"O_WRONLY|O_RDWR|O_DIRECTORY|'[wax][bt+]*'")  # in the arguments of a call that writes
# (file, call) -> why it may open a file itself
ALLOWED = {
    ("configs/read_file.py", "os.open"): "the gateway",
    ("configs/read_file.py", "os.fdopen"): "the gateway",
    ("classify/experiments/isolated.py", "_STATUS.read_text"): "the kernel's /proc/self/status",
    ("classify/export/formats.py", "safe_open"): "a file that the user names; the library maps it",
    ("store/format/shard_file.py", "h5py.File"): "a file in memory",
    ("store/format/packed.py", "h5py.File"): "a file in memory",
    ("store/format/packed.py", "os.fdopen"): "a file in memory",
    ("store/format/layout.py", "h5f.open"): "bytes in memory",
    ("store/format/layout.py", "h5a.open"): "bytes in memory",
    ("store/format/layout.py", "h5d.open"): "bytes in memory",
}


def readers(text: str) -> set[str]:
    """The calls in a source that open a file for reading, except of bytes in memory (io.BytesIO)."""
    found = set()
    for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        is_method = isinstance(call.func, ast.Attribute) and call.func.attr in METHODS
        in_memory = bool(call.args) and ast.unparse(call.args[0]).startswith("io.BytesIO(")
        writes = any(NO_READING.search(ast.unparse(item)) for item in [*call.args, *call.keywords])
        if (name in FUNCTIONS or is_method) and not in_memory and not writes:
            found.add(name)
    return found


def test_h4_every_file_is_read_through_the_gateway() -> None:
    found = {(path, name) for path, text in PRODUCT.items() for name in readers(text)}
    assert sorted(found - set(ALLOWED)) == []
    assert len(found) > 5


@pytest.mark.parametrize(
    "example",
    [
        "open(path)",
        "Path(p).read_bytes()",
        "path.read_text()",
        "with path.open('rb') as file: pass",
        "torch.load(path, weights_only=True)",
        "json.load(file)",
        "Image.open(path)",
        "np.load(path)",
        "os.open(path, os.O_RDONLY)",
    ],
)
def test_a_reader_outside_the_gateway_is_found(example: str) -> None:
    assert len(readers(example)) == 1


@pytest.mark.parametrize(
    "example", ["read_file(path, max_bytes=1)", "torch.load(io.BytesIO(data))", "file.read(3)", "path.open('wb')"]
)
def test_reading_through_the_gateway_and_from_memory_is_not_found(example: str) -> None:
    assert readers(example) == set()
