"""Fault injection: `python -m tests.faults.campaign [--full] [--only PART] [--json FILE]` (docs/reliability.md).

Parts whose names begin with "command" run whole commands; they take hours in full, and --command, --count, --seed and
--seconds run a share of them. Ends with exit code 1 if a guarantee was broken, or if the negative control broke none.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.faults.build import build_library
from tests.faults.commands.campaign import COMMAND_PARTS, Amount, run_part
from tests.faults.concurrency import read_during_writes, try_second_writer
from tests.faults.damage import damage_checkpoint, damage_stores
from tests.faults.injection import (
    fail_at_every_call,
    kill_at_every_call,
    kill_at_random,
    limit_file_size,
    make_trial,
    negative_control,
)
from tests.faults.trial import ForkServer

STORE_PARTS = ("kills", "random", "errors", "full_disk", "control", "together", "damage")
PARTS = (*STORE_PARTS, *COMMAND_PARTS)


def run_campaign(folder: Path, parts: tuple[str, ...], amount: Amount) -> dict[str, Any]:
    """Runs the parts; returns the results of each by its name."""
    library = build_library(folder)
    assert library is not None, "the campaign needs a C compiler (cc)"
    full = amount.full
    server = ForkServer(library)
    trial = make_trial(server, folder, 80 if full else 4)
    small = make_trial(server, folder, 8 if full else 3)
    runs = {
        "kills": lambda: kill_at_every_call(trial),
        "random": lambda: kill_at_random(trial, 200 if full else 10, 0.3 if full else 0.05),
        "errors": lambda: fail_at_every_call(small),
        "full_disk": lambda: limit_file_size(small, range(1000, 16000, 250 if full else 5000)),
        "control": lambda: negative_control(server, folder),
        "together": lambda: {
            "readers": read_during_writes(folder / "read.store", 8, 30 if full else 3),
            "writers": try_second_writer(folder / "two.store", 20),
        },
        "damage": lambda: damage_stores(folder, 500 if full else 50) | damage_checkpoint(folder, 500 if full else 50),
    }
    results = {}
    for part in parts:
        start = time.monotonic()
        result = runs[part]() if part in runs else run_part(part, folder, library, amount)
        results[part] = result | {"seconds": 0.0}
        results[part]["seconds"] = round(time.monotonic() - start, 1)
        print(part, json.dumps(results[part]), file=sys.stderr)  # kept if a later part crashes
    server.close()
    return results


def failures_of(part: str, result: dict[str, Any]) -> list[str]:
    """The broken guarantees in the result of a part."""
    if part == "control":
        return [] if result["broken"] else ["the negative control lost nothing, so the campaign detects nothing"]
    if part == "together":
        readers, writers = result["readers"], result["writers"]
        failures = [f"{readers['wrong']} loads were wrong"] if readers["wrong"] or not readers["loads"] else []
        return failures + (["a second writer opened the store"] if writers["refused"] != writers["attempts"] else [])
    if part == "damage":
        return [f"{kind}: {name} was missed" for kind in result if kind != "seconds" for name in result[kind]["missed"]]
    if part in COMMAND_PARTS:
        return list(result["broken"])
    return list(result["broken"]) + ([f"{result['signals']} signals"] if result["signals"] else [])


def main() -> None:
    """Runs the chosen parts and prints their results; ends with exit code 1 on a failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="every call and all random moments")
    parser.add_argument("--only", choices=PARTS, action="append", help="run this part only; can be repeated")
    parser.add_argument("--command", default=[], action="append", help="run this command only; can be repeated")
    parser.add_argument("--count", type=int, default=0, help="trials of each kind and command")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments of commands")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="time for each command of a part")
    parser.add_argument("--folder", type=Path, help="folder for the stores (default: the temporary folder)")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    arguments = parser.parse_args()
    amount = Amount(arguments.full, tuple(arguments.command), arguments.count, arguments.seed, arguments.seconds)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        results = run_campaign(Path(folder).resolve(), tuple(arguments.only or PARTS), amount)
    text = json.dumps(results, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    failures = [failure for part, result in results.items() for failure in failures_of(part, result)]
    print("\n".join(failures) or "all guarantees hold, and the negative control lost data as expected")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
