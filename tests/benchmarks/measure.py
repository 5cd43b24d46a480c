"""Side by side or not at all: every figure is a median of interleaved runs (A B A B ...), and only ratios travel."""

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Figures = dict[str, float]


def interleave(ways: dict[str, Callable[[], float]], rounds: int) -> Figures:
    """Runs every way once a round, in turn, and gives the median of what each returned."""
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            seen[name].append(way())
            print(f"  round {number + 1} of {rounds}: {name} {seen[name][-1]:.4g}", file=sys.stderr)
    return {name: statistics.median(values) for name, values in seen.items()}


def machine() -> dict[str, Any]:
    """The hardware and versions that the figures belong to."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def report(title: str, rows: list[tuple[str, str, str]], content: dict[str, Any], out: Path | None) -> None:
    """Prints a table (what, figure, target) and writes the JSON beside it."""
    print(f"\n## {title}\n\n| what | measured | target |\n| --- | --- | --- |")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"title": title, "machine": machine()} | content, indent=1) + "\n")


def _processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.processor()
