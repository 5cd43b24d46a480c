"""Files are written through `store/files.py` alone; other calls that write are listed here with a reason."""

import ast
import re

import pytest

from tests.sources import PRODUCT

METHODS = {
    *("write_bytes", "write_text", "tofile", "savefig", "save_image", "to_csv", "mkdir", "touch", "unlink", "rmdir"),
    *("rename", "replace", "symlink_to", "hardlink_to", "chmod", "truncate", "makedirs", "extractall", "serialize_to"),
    *("write_jpeg", "write_png", "write_file", "download_url_to_file", "load_state_dict_from_url", "urlretrieve"),
}
FUNCTIONS = {
    *(f"os.{name}" for name in ("open", "mkdir", "makedirs", "remove", "unlink", "rmdir", "removedirs", "rename")),
    *(f"os.{name}" for name in ("renames", "replace", "link", "symlink", "truncate", "chmod", "chown", "mkfifo")),
    *(f"os.{name}" for name in ("mknod", "utime", "ftruncate", "fdopen")),
    *(f"shutil.{name}" for name in ("copy", "copy2", "copyfile", "copytree", "copymode", "move", "rmtree")),
    *("open", "io.open", "io.FileIO", "FileIO", "h5py.File", "zipfile.ZipFile", "tarfile.open", "json.dump"),
    *("torch.save", "torch.jit.save", "torch.onnx.export", "np.save", "np.savez", "np.savetxt", "np.memmap"),
    *("onnx.save", "save_file", "logging.FileHandler", "FileHandler", "TemporaryDirectory", "NamedTemporaryFile"),
    *(f"tempfile.{name}" for name in ("mkstemp", "mkdtemp", "TemporaryFile", "TemporaryDirectory")),
    *("tempfile.NamedTemporaryFile", "tempfile.SpooledTemporaryFile", "write_jpeg", "write_png", "write_file"),
}
WRITING = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_APPEND|O_TRUNC|['\"](?:[wax]|r\+)[bt+]*['\"]")  # flags and modes
READS_UNLESS = {"open", "io.open", "io.FileIO", "FileIO", "os.open", "os.fdopen", "h5py.File", "zipfile.ZipFile"}
TEXT = {"replace", "serialize_to"}  # methods that text has too, with two arguments
# (file, call) -> why it may write a file itself
ALLOWED = {
    ("store/files.py", "os.open"): "the gateway: temporary files, logs and locks",
    ("store/files.py", "os.fdopen"): "the gateway: logs",
    ("store/files.py", "os.replace"): "the gateway",
    ("store/files.py", "temporary.chmod"): "the gateway",
    ("store/files.py", "temporary.unlink"): "the gateway",
    ("store/files.py", "file.unlink"): "the gateway: temporary files of killed processes",
    ("store/files.py", "path.mkdir"): "the gateway",
    ("store/files.py", "folder.mkdir"): "the gateway",
    **{("store/files.py", f"{name}.rename"): "the gateway" for name in ("path", "entry")},
    **{("store/files.py", name): "the gateway" for name in ("path.unlink", "source.rmdir")},
    ("store/ownership.py", "os.open"): "the marker of a folder, which is locked and thus written in place",
    ("store/writer.py", "path.unlink"): "shards that STORE.json does not name any more",
    ("store/format/shard_file.py", "h5py.File"): "a file in memory",
    ("store/format/packed.py", "h5py.File"): "a file in memory",
    ("store/format/packed.py", "os.fdopen"): "a file in memory",
    (
        "configs/process/failures.py",
        "tempfile.mkstemp",
    ): "the traceback of an unexpected error, in the temporary folder",
    ("configs/process/failures.py", "os.fdopen"): "the same file",
    ("configs/process/streams.py", "os.open"): "/dev/null in place of a closed standard stream",
    ("classify/export/formats.py", "TemporaryDirectory"): "the exporter and the loader take paths only",
    ("classify/export/formats.py", "path.write_bytes"): "a file in this temporary folder",
    ("classify/export/formats.py", "torch.onnx.export"): "a file in this temporary folder",
    ("configs/process/streams.py", "io.FileIO"): "standard output and error",
    ("configs/read_file.py", "os.open"): "opens for reading",
    ("extract/backbones/weights.py", "path.parent.mkdir"): "the cache of torch.hub",
    ("extract/backbones/weights.py", "torch.hub.download_url_to_file"): "the cache of torch.hub",
    **{
        ("classify/replacement.py", f"{name}.path.rmdir"): "a folder of the run, if empty"
        for name in ("seed", "staged")
    },
    **{
        ("extract/synth/dataset.py", name): "a new dataset, drawn in a temporary folder that is then renamed"
        for name in ("tempfile.mkdtemp", "entry.rename", "os.replace", "shutil.rmtree")
    },
}


def writers(text: str) -> set[str]:
    """The calls in a source that create, write, move or remove files, except on bytes in memory (`buffer`)."""
    found = set()
    for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        given = [ast.unparse(item) for item in [*call.args, *call.keywords]]
        if "buffer" in given or (method in TEXT and len(given) != 1 and name not in FUNCTIONS):
            continue
        if name in READS_UNLESS or (method == "open" and name not in FUNCTIONS):
            writes = any(WRITING.search(text) for text in given) or "flags" in given
            found |= {name} if writes else set()
        elif name in FUNCTIONS or method in METHODS:
            found.add(name)
    return found


def test_w1_every_file_is_written_through_the_gateway() -> None:
    found = {(path, name) for path, text in PRODUCT.items() for name in writers(text)}
    assert sorted(found - set(ALLOWED)) == []
    assert sorted(set(ALLOWED) - found) == []  # the list names no call that is gone


@pytest.mark.parametrize(
    "example",
    [
        "open(path, 'w')",
        "open(path, mode='ab')",
        "Path(p).write_bytes(data)",
        "path.write_text(text)",
        "with path.open('x') as file: pass",
        "path.open('r+b')",
        "os.open(path, os.O_WRONLY | os.O_CREAT)",
        "os.open(path, flags)",
        "os.replace(a, b)",
        "path.rename(other)",
        "path.replace(other)",
        "path.parent.mkdir(parents=True)",
        "path.unlink(missing_ok=True)",
        "shutil.rmtree(folder)",
        "shutil.copy(a, b)",
        "tempfile.mkdtemp()",
        "TemporaryDirectory()",
        "h5py.File(path, 'w')",
        "torch.save(content, path)",
        "np.save(path, array)",
        "figure.savefig(path)",
        "logging.FileHandler(path)",
        "write_jpeg(pixels, path)",
        "torchvision.io.write_png(pixels, path)",
        "json.dump(content, file)",
    ],
)
def test_a_writer_outside_the_gateway_is_found(example: str) -> None:
    assert len(writers(example)) == 1


@pytest.mark.parametrize(
    "example",
    [
        "publish(path, data)",
        "torch.save(content, buffer)",
        "figure.savefig(buffer, format='png')",
        "open(path)",
        "path.open('rb')",
        "os.open(path, os.O_RDONLY)",
        "text.replace('a', 'b')",
        "replace(config, seed=1)",
        "h5py.File(path)",
    ],
)
def test_reading_memory_and_the_gateway_are_not_found(example: str) -> None:
    assert writers(example) == set()
