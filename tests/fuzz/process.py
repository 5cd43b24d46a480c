"""Fuzzes one loader in a process with limited memory: `python -m tests.fuzz.process LOADER CASES SEED`.

Prints a JSON object: the number of cases, of accepted and of refused files, and the slowest load in seconds. An
undocumented error ends the process with a traceback that shows the case.
"""

import json
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.loaders import LOADERS, Loader

MEMORY = 2 * 2**30  # bytes in addition to those in use after the imports
TIMEOUT = 5.0  # seconds that a load may take
TOKENS = [b"NaN", b"1e999", b"-1", b"0", b"null", b"true", b'""', b"[]", b"{}", b"[" * 2000, b'"\\ud800"', b"\xff\xfe"]
TOKENS += [b"9" * 30, b"..", b"/etc/passwd", b"\0" * 8, b"\xff" * 8, b"\x80\x02c", b"cposix\nsystem\n", b"PK\x03\x04"]
EDITS = st.tuples(
    st.sampled_from(["flip", "set", "insert", "delete", "copy", "cut"]),
    st.integers(0, 2**30),
    st.integers(0, 2**30),
    st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(TOKENS)),
)


def apply_edits(data: bytes, edits: list[tuple[str, int, int, bytes]]) -> bytes:
    """Applies (kind, first position, second position, bytes) edits one after another."""
    out = bytearray(data)
    for kind, first, second, junk in edits:
        size = len(out) or 1
        at, to = first % size, second % size
        if kind == "flip" and out:
            out[at] ^= 1 << second % 8
        elif kind == "set":
            out[at : at + len(junk)] = junk
        elif kind == "insert":
            out[at:at] = junk
        elif kind == "delete":
            del out[at : at + 1 + second % 64]
        elif kind == "copy":
            out[to:to] = out[at : at + 64]
        elif kind == "cut" and second % 4 == 0:
            del out[at:]
    return bytes(out)


def fuzz_loader(loader: Loader, cases: int, number: int) -> dict[str, float]:
    """Loads `cases` changed files, seeded with `number`. Raises every error that the loader does not document."""
    counts: dict[str, float] = {"cases": 0, "accepted": 0, "refused": 0, "slowest": 0.0}

    @seed(number)
    @settings(
        max_examples=cases, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.integers(0, 10), st.lists(EDITS, min_size=1, max_size=6), st.one_of(st.none(), st.binary(max_size=200)))
    def load_case(which: int, edits: list[tuple[str, int, int, bytes]], junk: bytes | None) -> None:
        data = apply_edits(loader.intact[which % len(loader.intact)], edits) if junk is None or which else junk
        loader.path.write_bytes(data)
        start = time.monotonic()
        try:
            loader.load()
            counts["accepted"] += 1
        except loader.errors as error:
            str(error).encode()
            counts["refused"] += 1
        seconds = time.monotonic() - start
        assert seconds < TIMEOUT, f"{seconds:.1f} s"
        counts["cases"] += 1
        counts["slowest"] = max(counts["slowest"], round(seconds, 3))

    load_case()
    return counts


def main() -> None:
    """Fuzzes the loader that the command line names."""
    warnings.simplefilter("ignore")
    name, cases, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory() as folder:
        loader = LOADERS[name](Path(folder))
        loader.path.write_bytes(loader.intact[0])
        loader.load()  # completes the imports before the memory is limited
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,) * 2)
        print(json.dumps(fuzz_loader(loader, cases, number)))


if __name__ == "__main__":
    main()
