"""A folder in which commands run under faults: their inputs, a new folder for their outputs, and files of the user."""

import hashlib
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.trial import ALL, NONE, Fault, ForkServer
from tests.jobs import QUICK, SCENES
from tests.jrdb_folder import write_folder

SERVER = "tests.faults.commands.server"
HEAD = ("--visual_dim", "8", "--epochs", "2", "--batch_size", "8")  # of a small head
USER_FILES = ("mine.txt", "out/thesis.tex", "out/.p.json.tmp", "out/.lock", "out/run.bak/config.json", "tmp/notes.tmp")
CONTENT = b"A file of the user, which no command may change.\n"


@dataclass(frozen=True)
class Result:
    """How a command ended: its exit status (negative: a signal's number), seconds, counted calls, and what it said."""

    status: int
    seconds: float
    calls: int
    out: str
    error: str


class Workspace:
    """`base` has the inputs (data, a store and a finished run); commands run in `trial` and write to its `out`."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.folder, self.library = folder, library
        self.server = ForkServer(library, SERVER)
        self.base, self.trial = folder / "base", folder / "trial"
        self.base.mkdir(parents=True)
        self.data = write_folder(self.base / "data", SCENES, frames=2, people=4)
        for name in ("notes.txt", "images/notes.txt", f"images/image_stitched/{SCENES[0]}/notes.txt"):
            path = self.data / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(CONTENT)
        self.reset()
        store, run = self.base / "s.store", self.base / "run"
        options = ("--data_path", self.data, *QUICK, *HEAD, "--freeze_backbone")
        self.make("train", *options, "--store", store, "--checkpoint_dir", run)
        self.inputs = self.digest(self.base)

    def close(self) -> None:
        """Ends the server."""
        self.server.close()

    def reset(self) -> None:
        """Empties the folder for outputs, except for files of the user."""
        shutil.rmtree(self.trial, ignore_errors=True)
        for name in USER_FILES:
            (self.trial / name).parent.mkdir(parents=True, exist_ok=True)
            (self.trial / name).write_bytes(CONTENT)

    def run(self, *arguments: str | Path, fault: Fault | None = None, **more: Any) -> Result:
        """Runs a command line in `trial`, injecting `fault` into its calls on files there."""
        paths = {name: str(self.folder / name) for name in ("stdout", "stderr", "state")}
        temporary = {"TMPDIR": str(self.trial / "tmp"), "HOME": str(self.folder / "home")}
        job = {"arguments": [str(word) for word in arguments], "folder": str(self.trial), "environment": temporary}
        answer = self.server.ask(job | paths | {"root": f"{self.trial}/"} | more, fault or Fault(ALL, NONE, 1))
        texts = [(self.folder / name).read_text(errors="backslashreplace") for name in ("stdout", "stderr")]
        calls = [int(line.split()[1]) for line in answer["lines"] if line.startswith("calls ")]
        return Result(answer["status"], answer["seconds"], max(calls, default=0), *texts)

    def signal(self, *arguments: str | Path, seconds: float, number: int = signal.SIGKILL) -> Result:
        """Runs a command line and sends it a signal after some seconds."""
        return self.run(*arguments, kill_after=seconds, signal=int(number))

    def make(self, *arguments: str | Path) -> None:
        """Runs a command line that must succeed."""
        result = self.run(*arguments)
        assert result.status == 0, (arguments, result)

    def changed_user_files(self) -> list[str]:
        """The files of the user that are not as they were."""
        files = [self.trial / name for name in USER_FILES]
        changed = [str(path) for path in files if not path.is_file() or path.read_bytes() != CONTENT]
        now = self.digest(self.base)
        return changed + [name for name in now.keys() | self.inputs.keys() if now.get(name) != self.inputs.get(name)]

    @staticmethod
    def digest(folder: Path) -> dict[str, str]:
        """The sha256 of every file; of links, their target."""
        return {
            str(path): str(path.readlink()) if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_symlink() or path.is_file()
        }

    def outputs(self) -> list[Path]:
        """All files in `trial` that are not the user's."""
        users = {self.trial / name for name in USER_FILES}
        return [path for path in sorted(self.trial.rglob("*")) if path.is_file() and path not in users]
