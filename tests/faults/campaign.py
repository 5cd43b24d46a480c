"""`python -m tests.faults.campaign [--full] [--only PART] [--json FILE]`: the figures of docs/reliability.md.

Exit code 1 where a promise was broken, or where the negative control was not.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.faults.build import build_library
from tests.faults.damage import damaged_checkpoint, damaged_stores
from tests.faults.harness import Zygote
from tests.faults.kills import (
    errors_at_every_call,
    full_disks,
    kills_at_every_call,
    make_trial,
    negative_control,
    random_kills,
)
from tests.faults.together import readers_while_a_writer_works, two_writers

PARTS = ("kills", "random", "errors", "full_disk", "control", "together", "damage")


def campaign(folder: Path, parts: tuple[str, ...], full: bool) -> dict[str, Any]:
    """Figures by part."""
    library = build_library(folder)
    assert library is not None, "the campaign needs a C compiler (cc)"
    zygote = Zygote(library)
    trial = make_trial(zygote, folder, 80 if full else 4)
    small = make_trial(zygote, folder, 8 if full else 3)
    runs = {
        "kills": lambda: kills_at_every_call(trial),
        "random": lambda: random_kills(trial, 200 if full else 10, 0.3 if full else 0.05),
        "errors": lambda: errors_at_every_call(small),
        "full_disk": lambda: full_disks(small, range(1000, 16000, 250 if full else 5000)),
        "control": lambda: negative_control(zygote, folder),
        "together": lambda: {
            "readers": readers_while_a_writer_works(folder / "read.store", 8, 30 if full else 3),
            "writers": two_writers(folder / "two.store", 20),
        },
        "damage": lambda: damaged_stores(folder, 500 if full else 50) | damaged_checkpoint(folder, 500 if full else 50),
    }
    figures = {}
    for part in parts:
        began = time.monotonic()
        figures[part] = runs[part]() | {"seconds": 0.0}
        figures[part]["seconds"] = round(time.monotonic() - began, 1)
        print(part, json.dumps(figures[part]), file=sys.stderr)  # not lost where a later part cannot end
    zygote.close()
    return figures


def faults_of(part: str, found: dict[str, Any]) -> list[str]:
    """What is wrong in a part's figures."""
    if part == "control":
        return [] if found["broken"] else ["the control lost nothing, so the harness detects nothing"]
    if part == "together":
        readers, writers = found["readers"], found["writers"]
        wrong = [f"{readers['wrong']} loads were wrong"] if readers["wrong"] or not readers["loads"] else []
        return wrong + (["a second writer got in"] if writers["refused"] != writers["attempts"] else [])
    if part == "damage":
        return [f"{kind}: {what} was missed" for kind in found if kind != "seconds" for what in found[kind]["missed"]]
    return list(found["broken"]) + ([f"{found['signals']} signals"] if found["signals"] else [])


def main() -> None:
    """Runs the parts, prints the figures, and ends with 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--folder", type=Path, help="where the stores are made (default: the temporary folder)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        figures = campaign(Path(folder), tuple(given.only or PARTS), given.full)
    text = json.dumps(figures, indent=1)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")
    wrong = [fault for part, found in figures.items() for fault in faults_of(part, found)]
    print("\n".join(wrong) or "every promise was kept, and the control was not")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
