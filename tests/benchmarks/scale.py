"""Planning, loading, training and testing at JRDB's size, each in a new process, also compared with another version.

python -m tests.benchmarks.scale [--persons 600000] [--pairs 650000] [--boxes 690510] [--rounds 2] [--clock wall]
    [--before CHECKOUT] [--out FILE]
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tests.benchmarks.measure import Measurements, Row, interleave, report
from tests.benchmarks.scale_data import FRAMES, write_annotations, write_store

ROOT = Path(__file__).parents[2]
JOB = Path(__file__).with_name("scale_job.py")
TITLES = {
    "plan": "planning all boxes",
    "train 24 load": "loading the store",
    "train 24 prepare": "standardisation, checkpoints, plots",
    "train 24 baselines": "baselines",
    "train 24 train": "an epoch at batch 24, validation included",
    "train 24 evaluate": "the test at batch 24",
    "train 1024 train": "an epoch at batch 1024, validation included",
    "train 1024 evaluate": "the test at batch 1024",
}
TARGETS = {"plan": "half of before", "train 24 baselines": "8 s", "peak of training": "2.5 GB"}


@click.command()
@click.option("--persons", default=600_000)
@click.option("--pairs", default=650_000)
@click.option("--boxes", default=690_510, help="Boxes to plan; all of JRDB has 1,800,000.")
@click.option("--rounds", default=2)
@click.option("--clock", type=click.Choice(["wall", "processor"]), default="wall", help="Which seconds to measure.")
@click.option("--before", type=click.Path(path_type=Path), help="Folder of another version to compare with, in turn.")
@click.option("--out", type=click.Path(path_type=Path))
def main(persons: int, pairs: int, boxes: int, rounds: int, clock: str, before: Path | None, out: Path | None) -> None:
    """Prints a table and writes JSON."""
    versions = {"now": ROOT} if before is None else {"before": before.resolve(), "now": ROOT}
    with tempfile.TemporaryDirectory() as folder:
        store, data = Path(folder) / "store", Path(folder) / "data"
        write_store(store, persons, pairs)
        write_annotations(data, boxes)
        jobs = {"plan": ["plan", data], "train 24": ["train", store, "24"], "train 1024": ["train", store, "1024"]}
        values, results = _measure(versions, jobs, clock, rounds)
    rows = _table(values, list(versions))
    for job in jobs:
        equal = len({json.dumps(results[version, job]) for version in versions}) == 1
        rows.append((f"results of {job} equal in all rounds and versions", str(equal), "True"))
    command = f"python -m tests.benchmarks.scale --persons {persons} --pairs {pairs} --boxes {boxes} --rounds {rounds}"
    title = f"JRDB's size: {persons:,} people, {pairs:,} pairs; {FRAMES:,} frames, {boxes:,} boxes; {clock} seconds"
    report(title, rows, {"command": f"{command} --clock {clock}", "figures": values}, out)


def _measure(
    versions: dict[str, Path], jobs: dict[str, list[Any]], clock: str, rounds: int
) -> tuple[Measurements, dict[tuple[str, str], list[Any]]]:
    """The medians of every part of every job and version, and the results of each job in every round."""
    parts: dict[str, list[dict[str, float]]] = {}
    results: dict[tuple[str, str], list[Any]] = {}

    def run(version: str, job: str) -> float:
        done = _run(versions[version], clock, jobs[job])
        results.setdefault((version, job), []).append(done.pop("results"))
        parts.setdefault(f"{version} {job}", []).append(done)
        return float(sum(seconds for name, seconds in done.items() if name != "peak_gb"))

    measures: dict[str, Callable[[], float]] = {
        f"{version} {job}": lambda version=version, job=job: run(version, job) for job in jobs for version in versions
    }
    values = interleave(measures, rounds)
    for job, rounds_of_job in parts.items():
        for part in rounds_of_job[0]:
            series = sorted(values_of_round[part] for values_of_round in rounds_of_job)
            name = job if part == "plan" else f"{job} {part}"
            values[name] = (series[(len(series) - 1) // 2] + series[len(series) // 2]) / 2
    return values, results


def _run(root: Path, clock: str, job: list[Any]) -> dict[str, Any]:
    """Runs a job with the code in folder `root`."""
    command = [sys.executable, "-c", JOB.read_text(), clock, *map(str, job)]
    done: dict[str, Any] = json.loads(subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE).stdout)
    return done


def _table(values: Measurements, versions: list[str]) -> list[Row]:
    rows = []
    for name, title in TITLES.items():
        series = [values[f"{version} {name}"] for version in versions]
        rows.append((title, _compare(series, "s"), TARGETS.get(name, "")))
    for title, job in (("peak of training", "train 1024"), ("peak of planning", "plan")):
        series = [values[f"{version} {job} peak_gb"] for version in versions]
        rows.append((f"{title}, imports included", _compare(series, "GB"), TARGETS.get(title, "")))
    return rows


def _compare(series: list[float], unit: str) -> str:
    """ "20.0 s before, 5.00 s now: 0.25"; without another version "5.00 s"."""
    if len(series) == 1:
        return f"{series[0]:.3g} {unit}"
    return f"{series[0]:.3g} {unit} before, {series[1]:.3g} {unit} now: {series[1] / series[0]:.2f}"


if __name__ == "__main__":
    main()
