"""Records every path that a command opens for writing, creates, renames, changes or removes.

The library of faults records them in the process and in those that it starts. Each command may change its outputs, the
cache of a store (.images.json), and the temporary folder; `stray_writes` lists everything else.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.faults.commands import scenarios
from tests.faults.commands.scenarios import CACHED, Arguments
from tests.faults.commands.workspace import Workspace
from tests.faults.trial import ROOT
from tests.jobs import QUICK

DEVICE = os.devnull  # for streams that nobody reads, and in the name of HDF5 files in memory
LIBRARY_CACHES = (".cache/matplotlib", ".config/matplotlib")  # in the home folder: the list of fonts


@dataclass(frozen=True)
class Recorded:
    """A command line and its outputs: files and folders, relative to `trial`."""

    name: str
    arguments: Arguments
    outputs: tuple[str | Path, ...] = ()


def recorded_commands(workspace: Workspace) -> list[Recorded]:
    """All commands that are checked."""
    data, run, store = workspace.data, workspace.base / "run", workspace.base / "s.store"
    caches = (store / ".images.json", store / ".tmp", store / ".lock")
    train, synth = scenarios.train_arguments(workspace), ("--scenes", "3", "--frames", "1", "--people", "2")
    kinds = ("onnx", "pt2", "torchscript", "safetensors")
    return [
        Recorded("extract", scenarios.extract_arguments(workspace), ("out/x.store",)),
        Recorded("train cached", (*train, CACHED), ("out/run", "stores")),
        Recorded("train end to end", train, ("out/run",)),
        Recorded("train seeds", (*train, CACHED, "--store", store, "--seeds", "2"), ("out/run", *caches)),
        Recorded(
            "run", ("run", "test", "--frame_interval", "1", "--data_path", data, *QUICK), ("checkpoints", "stores")
        ),
        Recorded("finetune", scenarios.finetune_arguments(workspace), ("out/run",)),
        Recorded("evaluate --store", ("evaluate", run, "--store", store)),
        Recorded("evaluate --data_path", ("evaluate", run, "--data_path", data)),
        Recorded("predict", scenarios.predict_arguments(workspace), ("out/p.json", "out/drawn")),
        Recorded("report", ("report", run, "--out", "out/r.html"), ("out/r.html",)),
        *(
            Recorded(f"export {kind}", ("export", run, "--format", kind, "--out", "out/model"), ("out/model",))
            for kind in kinds
        ),
        Recorded("compare", scenarios.compare_arguments(workspace), ("out/c",)),
        Recorded("synth", ("synth", "out/d", *synth), ("out/d",)),
        Recorded("synth --labels", ("synth", "out/d", "--labels", data, "--scenes", "1"), ("out/d",)),
        Recorded("store verify", ("store", "verify", store, "--data_path", data), caches),
        Recorded("store info", ("store", "info", store)),
        Recorded("store pack", ("store", "pack", store, "out/x.h5"), ("out/x.h5",)),
        Recorded("store repair", ("store", "repair", "out/x.store", "--data_path", data), ("out/x.store",)),
    ]


def stray_writes(workspace: Workspace, command: Recorded) -> list[str]:
    """The paths outside its outputs, the store's cache and the temporary folder that a command changes."""
    workspace.reset()
    if command.name == "store repair":
        scenarios.damage_store(workspace)
    home = workspace.folder / "home"
    allowed = [workspace.trial / name for name in ("tmp", *command.outputs)] + [home / name for name in LIBRARY_CACHES]
    changed = changed_paths(workspace, command.arguments)
    assert changed or not command.outputs, f"{command.name} changes nothing"
    return [path for path in changed if not any(_belongs_to(Path(path), out) for out in (Path(DEVICE), *allowed))]


def _belongs_to(path: Path, output: Path) -> bool:
    """Whether a path is an output, inside it, or a temporary file or folder beside it with its name."""
    if path.is_relative_to(output):
        return True
    beside = path.parts[: len(output.parts)]
    temporary = beside[-1].startswith(f".{output.name}.") and beside[-1].endswith((".tmp", ".partial"))
    return beside[:-1] == output.parts[:-1] and temporary


def changed_paths(workspace: Workspace, arguments: Arguments) -> list[str]:
    """Runs a command line in a new process, as its user does, and returns the paths that it changes."""
    home = {"TMPDIR": str(workspace.trial / "tmp"), "HOME": str(workspace.folder / "home")}
    for name in LIBRARY_CACHES:
        (workspace.folder / "home" / name).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
    return record_paths(command, workspace.library, workspace.folder / "record", workspace.trial, home)


def record_paths(
    command: list[str], library: Path, record: Path, folder: Path, environment: dict[str, str]
) -> list[str]:
    """Runs a command in `folder`; returns the paths that it and the processes that it starts change, without links.

    Files in memory (memfd_create) are left out.
    """
    record.unlink(missing_ok=True)
    record.touch()
    recording = {"LD_PRELOAD": str(library), "FAULT_RECORD": str(record), "OMP_NUM_THREADS": "1"}
    recording |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}  # bytecode is Python's own
    done = subprocess.run(
        command, cwd=folder, env=os.environ | recording | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (command, done.returncode, done.stderr[-2000:])
    lines = record.read_text(errors="surrogateescape").splitlines()
    paths = {os.path.realpath(line.split(" ", 1)[1]) for line in lines}
    return sorted(path for path in paths if not path.startswith("/memfd:"))
