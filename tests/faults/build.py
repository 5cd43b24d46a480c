"""Compiles the C library that injects faults."""

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("inject.c")


def build_library(folder: Path, source: Path = SOURCE) -> Path | None:
    """Compiles `source` into a shared library in `folder`; returns None if no C compiler is installed."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = folder / f"{source.stem}.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library
