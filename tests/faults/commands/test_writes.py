"""No command changes a file outside its outputs, the store's cache and the temporary folder."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.build import build_library
from tests.faults.commands.workspace import Workspace
from tests.faults.commands.writes import record_paths, recorded_commands, stray_writes

QUICK = {"train cached", "predict"}  # in the normal tests; the campaign checks all commands
LIBRARIES = """
import shutil, tempfile, h5py, numpy, torch
from pathlib import Path
from PIL import Image
h5py.File("a.h5", "w").close()
torch.save({}, "b.pth")
torch.jit.save(torch.jit.script(torch.nn.Identity()), "c.pt")
Image.new("RGB", (8, 8)).save("d.png")
numpy.save("e.npy", numpy.zeros(3))
shutil.copy("e.npy", "f.npy")
Path("f.npy").rename("g.npy")
Path("h").mkdir()
Path("h/i").symlink_to("j")
Path("h/k").hardlink_to("e.npy")
shutil.rmtree("h")
Path("l.txt").write_text("x")
Path("l.txt").chmod(0o600)
Path("m").touch()
"""
NAMES = {"a.h5", "b.pth", "c.pt", "d.png", "e.npy", "f.npy", "g.npy", "h", "h/i", "h/k", "l.txt", "m"}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = build_library(tmp_path_factory.mktemp("library"))
    if library is None:
        pytest.skip("no C compiler (cc): calls cannot be recorded below Python")
    return library


def test_commands_change_only_their_outputs(library: Path, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w", library)
    commands = [command for command in recorded_commands(workspace) if command.name in QUICK]
    assert {command.name: stray_writes(workspace, command) for command in commands} == {name: [] for name in QUICK}
    predict = next(command for command in commands if command.name == "predict")
    without_drawings = type(predict)("predict", predict.arguments, predict.outputs[:1])
    assert stray_writes(workspace, without_drawings)  # the check can fail
    workspace.close()


def test_a_shard_is_made_without_opening_a_file(library: Path, tmp_path: Path) -> None:
    code = "from tests.fuzz.loaders import shards; from pathlib import Path; shards(Path('..', 'u'))"  # makes shards
    folder = tmp_path / "f"
    folder.mkdir()
    paths = record_paths([sys.executable, "-c", code], library, tmp_path / "record", folder, {"TMPDIR": str(tmp_path)})
    assert [path for path in paths if Path(path).is_relative_to(folder)] == []


def test_onnxruntime_is_imported_without_its_telemetry(library: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    home = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path)}
    code = "from classify.export.formats import ONNX, check_packages; check_packages(ONNX)"
    paths = record_paths([sys.executable, "-c", code], library, tmp_path / "record", tmp_path, home)
    assert [path for path in paths if Path(path).is_relative_to(home["HOME"])] == []


def test_the_record_sees_what_libraries_write(library: Path, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    paths = record_paths([sys.executable, "-c", LIBRARIES], library, tmp_path / "record", folder, {})
    assert {str(folder / name) for name in NAMES} <= set(paths)


def test_the_record_is_that_of_strace(library: Path, tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    folder, traced = tmp_path / "f", tmp_path / "traced"
    folder.mkdir()
    traced.mkdir()
    command = [strace, "-f", "-y", "-o", str(tmp_path / "log"), "-e", "trace=%file,write"]
    done = subprocess.run([*command, sys.executable, "-c", LIBRARIES], cwd=traced, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"strace cannot trace here: {done.stderr[-200:]!r}")
    opened = {
        name
        for line in (tmp_path / "log").read_text().splitlines()
        if re.search(r"O_WRONLY|O_RDWR|O_CREAT|rename|unlink|rmdir|mkdir|link|chmod|utimens", line)
        and "ENOENT" not in line
        for name in re.findall(r'"([^"]+)"', line)
        if not name.startswith("/") and "readlink" not in line
    }
    paths = record_paths([sys.executable, "-c", LIBRARIES], library, tmp_path / "record", folder, {})
    assert opened >= NAMES - {"h/i", "h/k"}
    assert {str(folder / name) for name in opened} <= {*paths, *(str(folder / name) for name in ("i", "j", "k"))}
