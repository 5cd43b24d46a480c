"""Measures alternatives in interleaved runs (A B A B ...), and reports medians with the hardware and versions."""

import json
import os
import platform
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

Measurements = dict[str, float]
Row = tuple[str, str, str]  # of a report: name, measured value, target


def interleave(measures: dict[str, Callable[[], float]], rounds: int) -> Measurements:
    """Runs every measurement once per round, in turn; returns the median value of each."""
    values: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        for name, measure in measures.items():
            values[name].append(measure())
            print(f"  round {number + 1} of {rounds}: {name} {values[name][-1]:.4g}", file=sys.stderr)
    return {name: statistics.median(series) for name, series in values.items()}


def seconds_of(function: Callable[[], object]) -> float:
    """The time that a call takes, in seconds."""
    start = perf_counter()
    function()
    return perf_counter() - start


def describe_machine() -> dict[str, Any]:
    """The hardware and versions that the measurements belong to."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def report(title: str, rows: list[Row], content: dict[str, Any], out: Path | None) -> None:
    """Prints a Markdown table; writes `content` as JSON to `out` if it is given."""
    print(f"\n## {title}\n\n| measurement | result | target |\n| --- | --- | --- |")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"title": title, "machine": describe_machine()} | content, indent=1) + "\n")


def _processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.processor()
