"""Crops per second of an extraction: in this process, as a command, and in another precision than float32."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

from configs.extraction_config import ExtractionConfig
from extract.backbones.weights import LoadedBackbone
from extract.job import extract_with
from tests.benchmarks.measure import Row, interleave, seconds_of

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("plain_script.py")


def measure_precision(
    data: Path, loaded: LoadedBackbone, crop_size: int, precision: str, rounds: int
) -> tuple[list[Row], dict[str, float]]:
    """Measures the job in `precision` against the job in float32; calibration, which int8 needs, apart."""
    calibration: list[float] = []
    values = interleave(
        {
            f"job in {name}": lambda name=name: job_rate(data, loaded, crop_size, name, calibration)
            for name in ("float32", precision)
        },
        rounds,
    )
    ratio = values[f"job in {precision}"] / values["job in float32"]
    target = {"int8": ">= 2.7" if loaded.backbone.name == "resnet50" else ">= 2.6", "bfloat16": ">= 1.55"}
    seconds = median(calibration[1::2])
    rows = [(f"the {name}, store and fsyncs included", f"{value:.0f} crops/s", "") for name, value in values.items()]
    rows.append((f"{precision} / float32", f"{ratio:.2f} times", target.get(precision, "")))
    rows.append((f"calibration in {precision}", f"{seconds:.1f} s", "< 6 s"))
    return rows, values | {"precision_ratio": ratio, "calibration_seconds": seconds}


def job_rate(
    data: Path, loaded: LoadedBackbone, crop_size: int, precision: str = "float32", before: list[float] | None = None
) -> float:
    """Crops per second of an extraction into a new store, in this process; adds the seconds before it to `before`."""
    with tempfile.TemporaryDirectory() as folder:
        config = ExtractionConfig(
            data_path=str(data), store=f"{folder}/s.store", weights="random", crop_size=crop_size, device="cpu",
            backbone=loaded.backbone.name, precision=precision,
        )  # fmt: skip
        start = perf_counter()
        summary = extract_with(config, loaded)
        seconds, total = perf_counter() - start, summary.statistics.seconds["total"]
        if before is not None:
            before.append(seconds - total)
        return summary.statistics.crops_forwarded / (seconds if before is None else total)


# Runs a command line as the console script does, and prints the peak memory of the process in kB.
_COMMAND = """
import sys
from pathlib import Path
import cli

def run():
    try:
        cli.main(sys.argv[1:])
    finally:
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        print(peak.split()[1], file=sys.stderr)

cli.run_and_exit(run)
"""


def process_rate(data: Path, loaded: LoadedBackbone, crop_size: int, peaks: list[float]) -> float:
    """Crops per second of the command in a new process; appends its peak memory in GB to `peaks`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _COMMAND, "extract", "--data_path", str(data), "--store", f"{folder}/s",
                   "--weights", "random", "--crop_size", str(crop_size), "--backbone", loaded.backbone.name,
                   "--device", "cpu", "--json"]  # fmt: skip
        start = perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        seconds = perf_counter() - start
        peaks.append(int(done.stderr.split()[-1]) * 1024 / 1e9)
        return int(json.loads(done.stdout)["crops_forwarded"]) / seconds


def script_rate(data: Path, loaded: LoadedBackbone, crop_size: int, crops: int) -> float:
    """Crops per second of the script that one writes in an hour, in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(SCRIPT), str(data), f"{folder}/f.h5", loaded.backbone.name, str(crop_size)]
        return crops / seconds_of(lambda: subprocess.run(command, check=True, capture_output=True))
