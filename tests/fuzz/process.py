"""Fuzzes loaders in a process with limited memory: `python -m tests.fuzz.process CASES SEED LOADER...`.

Prints a JSON object for each: its name, the number of cases, of accepted and of refused files, and the slowest load in
seconds. An undocumented error ends the process with a traceback that shows the case.
"""

import copy
import json
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.loader import Loader
from tests.fuzz.loaders import LOADERS

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
ODD = [None, True, -1, 0, 1, 2**31, 2**63, 1e308, -0.5, float("nan"), float("inf"), "", "x" * 5000, "\ud800", "../../x"]
ODD += ["/etc/passwd", [], {}, [[]], {"": None}, [0] * 1000, "<script>", "a|b\n", "0" * 64, {"a": {"b": [{}]}}]
CHANGES = st.tuples(  # of a value inside a document
    st.sampled_from(["replace", "delete", "add", "copy"]),
    st.lists(st.integers(0, 2**16), min_size=1, max_size=5),  # the way to the value: an item of each level
    st.integers(0, len(ODD) - 1),
)


def apply_changes(value: Any, changes: list[tuple[str, list[int], int]]) -> Any:
    """A copy of a document of dicts and lists, in which some values are replaced, removed, added or copied."""
    value = copy.deepcopy(value)
    for kind, way, odd in changes:
        parent, key = None, None
        item = value
        for number in way:
            if not isinstance(item, dict | list) or not item:
                break
            parent, key = item, (list(item) if isinstance(item, dict) else range(len(item)))[number % len(item)]
            item = parent[key]
        if parent is None:
            value = copy.deepcopy(ODD[odd])
        elif kind == "replace":
            parent[key] = copy.deepcopy(ODD[odd])
        elif kind == "delete":
            del parent[key]
        elif kind == "add" and isinstance(parent, dict):
            parent[f"{key}?"] = copy.deepcopy(ODD[odd])
        elif isinstance(parent, list):
            parent.insert(int(key or 0), copy.deepcopy(item if kind == "copy" else ODD[odd]))
    return value


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
    @given(
        st.integers(0, 10), st.lists(EDITS, min_size=1, max_size=6), st.one_of(st.none(), st.binary(max_size=200)),
        st.lists(CHANGES, min_size=1, max_size=3),
    )  # fmt: skip
    def load_case(which: int, edits: list[Any], junk: bytes | None, changes: list[Any]) -> None:
        if loader.values and which % 2:
            data = loader.encode(apply_changes(loader.values[which // 2 % len(loader.values)], changes))
        else:
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
    """Fuzzes the loaders that the command line names."""
    warnings.simplefilter("ignore")
    cases, number = int(sys.argv[1]), int(sys.argv[2])
    for name in sys.argv[3:]:
        with tempfile.TemporaryDirectory() as folder:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
            loader = LOADERS[name](Path(folder))
            loader.path.write_bytes(loader.intact[0])
            loader.load()  # completes the imports before the memory is limited
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
            print(json.dumps({"loader": name} | fuzz_loader(loader, cases, number)), flush=True)


if __name__ == "__main__":
    main()
