"""`python -m tests.fuzz.campaign [--full] [--cases N] [--json FILE]`: every loader under fire; figures on stdout."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.fuzz.loaders import LOADERS

ROOT = Path(__file__).parent.parent.parent
FULL, QUICK = 10_000, 150


def fuzz(name: str, cases: int, seed: int = 0, timeout: float | None = None) -> dict[str, Any]:
    """The figures of one loader; `crash` is "" where nothing but documented errors came out."""
    command = [sys.executable, "-m", "tests.fuzz.child", name, str(cases), str(seed)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    if done.returncode:
        return {"crash": f"exit status {done.returncode}: {done.stderr[-3000:]}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"crash": ""}


def main() -> None:
    """Fuzzes all loaders, or the named ones; ends with 1 where one crashed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help=f"{FULL:,} cases a loader")
    parser.add_argument("--cases", type=int)
    parser.add_argument("--only", choices=list(LOADERS), action="append")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    cases = given.cases or (FULL if given.full else QUICK)
    figures = {name: fuzz(name, cases) for name in given.only or LOADERS}
    text = json.dumps(figures, indent=1)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")
    sys.exit(any(found["crash"] for found in figures.values()))


if __name__ == "__main__":
    main()
