"""Fuzzing of all loaders: `python -m tests.fuzz.campaign [--full] [--cases N] [--only LOADER] [--json FILE]`."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.fuzz.loaders import LOADERS

ROOT = Path(__file__).parent.parent.parent
FULL, QUICK = 10_000, 60  # cases per loader


def fuzz(names: Sequence[str], cases: int, seed: int = 0, timeout: float | None = None) -> dict[str, dict[str, Any]]:
    """Fuzzes loaders one after another in a new process; `crash` is "" if only documented errors were raised.

    The loaders after one that crashed are missing.
    """
    command = [sys.executable, "-m", "tests.fuzz.process", str(cases), str(seed), *names]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    counts = [json.loads(line) | {"crash": ""} for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        crashed = names[len(counts)]
        counts.append({"loader": crashed, "crash": f"exit status {done.returncode}: {done.stderr[-3000:]}"})
    return {result["loader"]: result for result in counts}


def main() -> None:
    """Fuzzes all loaders, or those given by --only; ends with exit code 1 if one crashed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help=f"{FULL:,} cases per loader")
    parser.add_argument("--cases", type=int, help="cases per loader")
    parser.add_argument("--seed", type=int, default=0, help="of the random changes")
    parser.add_argument("--only", choices=list(LOADERS), action="append", help="fuzz this loader; can be repeated")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    arguments = parser.parse_args()
    cases = arguments.cases or (FULL if arguments.full else QUICK)
    results = {}
    for name in arguments.only or LOADERS:
        results |= fuzz([name], cases, arguments.seed)
        print(results[name], file=sys.stderr)  # kept if a later part is ended
    text = json.dumps(results, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    sys.exit(any(result["crash"] for result in results.values()))


if __name__ == "__main__":
    main()
