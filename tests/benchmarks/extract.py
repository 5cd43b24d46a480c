"""Extraction against the limit that its parts set alone, and the whole job against the way it was done before.

python -m tests.benchmarks.extract [--frames 120] [--backbone resnet18] [--crop_size 112] [--rounds 3] [--data DIR]
    [--no-steady] [--no-before] [--out FILE]
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import click
import torch
from torch import Tensor

from classify.data.selection import select_splits
from configs.extraction_config import ExtractionConfig
from configs.resnet_stage2_config import ResNetStage2Config
from extract.backbones.forward import frozen_forward
from extract.backbones.weights import LoadedBackbone, load_backbone
from extract.dataset import Dataset, read_dataset
from extract.images.crops import crop_people
from extract.images.read import read_frame
from extract.job import extract_with
from extract.synth.dataset import draw_dataset
from extract.units.collect import CPU_SIZES
from extract.units.workers import single_threaded_pool
from store.format.manifest import Selection
from tests.benchmarks.before import seconds_per_pair
from tests.benchmarks.measure import interleave, report

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
_PROBE = 256  # crops that a bare forward is timed over


@click.command()
@click.option("--frames", default=120)
@click.option("--backbone", default="resnet18")
@click.option("--crop_size", default=112)
@click.option("--rounds", default=3)
@click.option("--steady/--no-steady", default=True, help="The job against the limit of its parts.")
@click.option("--before/--no-before", default=True, help="50 epochs against the way it was done before.")
@click.option("--data", type=click.Path(path_type=Path), help="JRDB-format folder to take in place of drawn data.")
@click.option("--out", type=click.Path(path_type=Path))
def main(
    frames: int,
    backbone: str,
    crop_size: int,
    rounds: int,
    steady: bool,
    before: bool,
    data: Path | None,
    out: Path | None,
) -> None:
    """Prints a table and writes JSON."""
    rows: list[tuple[str, str, str]] = []
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = data or draw_dataset(Path(folder) / "data", scenes=6, frames=frames // 6, people=22)
        found = [_steady(data, load_backbone(backbone, "random"), crop_size, rounds)] if steady else []
        for more in found + ([_whole(data, rounds)] if before else []):
            rows, figures = rows + more[0], figures | more[1]
    command = f"python -m tests.benchmarks.extract --frames {frames} --backbone {backbone} --crop_size {crop_size}"
    report(f"Extraction, {backbone} at {crop_size}", rows, {"command": command, "figures": figures}, out)


def _steady(
    data: Path, loaded: LoadedBackbone, crop_size: int, rounds: int
) -> tuple[list[tuple[str, str, str]], dict[str, float]]:
    dataset = read_dataset(data, Selection(1, "all"), 0.0)
    people = len(dataset.tables.box) / len(dataset.image_paths)
    forwards = _forwards(loaded, crop_size)

    def job() -> float:
        with tempfile.TemporaryDirectory() as folder:
            config = ExtractionConfig(
                data_path=str(data), store=f"{folder}/s.store", weights="random", crop_size=crop_size, device="cpu",
                backbone=loaded.backbone.name,
            )  # fmt: skip
            began = perf_counter()
            summary = extract_with(config, loaded)
            return summary.statistics.crops_forwarded / (perf_counter() - began)

    peaks: list[float] = []  # GB
    ways: dict[str, Callable[[], float]] = {"job": job, "process": lambda: _process(data, loaded, crop_size, peaks)}
    ways["decode"] = lambda: _decode(dataset)
    ways["crop"] = lambda: _crop(dataset, crop_size)
    ways |= {f"forward: {name}": lambda way=way: _rate(way, crop_size) for name, way in forwards.items()}
    figures = interleave(ways, rounds)
    best = max(value for name, value in figures.items() if name.startswith("forward"))
    limit = 1 / (1 / best + figures["decode"] / people + figures["crop"])
    crops = len(dataset.tables.box)
    start = crops / figures["process"] - crops / figures["job"]
    figures |= {"people": people, "crops": crops, "limit": limit, "start_seconds": start}
    figures |= {"fraction": figures["job"] / limit, "process_fraction": figures["process"] / limit}
    rows = [(f"bare {name}", f"{value:.0f} crops/s", "") for name, value in figures.items() if "forward" in name]
    rows += [
        ("decode, one thread", f"{1000 * figures['decode']:.1f} ms a frame of {people:.1f} people", ""),
        ("crop, one thread", f"{1000 * figures['crop']:.3f} ms", ""),
        ("the job, store and fsync included", f"{figures['job']:.0f} crops/s", ""),
        ("share of the limit of the parts", f"{figures['fraction']:.2f}", ">= 0.90"),
        (
            f"a whole `stage2 extract` of {crops:,} crops, share of that limit",
            f"{figures['process_fraction']:.2f}",
            ">= 0.85",
        ),
        ("its start: imports, weights, plan, freezing", f"{start:.1f} s", "< 6 s"),
        ("its peak memory", f"{max(peaks):.2f} GB", "< 1.5 GB"),
    ]
    return rows, figures | {"peak_gb": max(peaks)}


_COMMAND = """
import sys
from pathlib import Path
import cli

def measured():
    try:
        cli.main(sys.argv[1:])
    finally:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        print(line.split()[1], file=sys.stderr)

cli.run_and_exit(measured)
"""


def _process(data: Path, loaded: LoadedBackbone, crop_size: int, peaks: list[float]) -> float:
    """Crops a second of the command as a process of its own; adds its peak memory in GB to `peaks`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _COMMAND, "extract", "--data_path", str(data), "--store", f"{folder}/s",
                   "--weights", "random", "--crop_size", str(crop_size), "--backbone", loaded.backbone.name,
                   "--device", "cpu", "--json"]  # fmt: skip
        began = perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
        seconds = perf_counter() - began
        peaks.append(int(done.stderr.split()[-1]) * 1024 / 1e9)
        return int(json.loads(done.stdout)["crops_forwarded"]) / seconds


def _forwards(loaded: LoadedBackbone, crop_size: int) -> dict[str, Callable[[Tensor], object]]:
    """Ways to forward a batch: the product's, on all cores at once and in lanes, plain PyTorch, and ONNX Runtime."""
    frozen = frozen_forward(loaded.backbone, crop_size, CPU, "float32")
    pool = single_threaded_pool(torch.get_num_threads())

    def lanes(crops: Tensor) -> object:
        return list(pool.map(frozen, crops.split(CPU_SIZES[0])))

    def plain(crops: Tensor) -> object:
        with torch.inference_mode():
            return loaded.backbone(crops)

    ways: dict[str, Callable[[Tensor], object]] = {"lanes": lanes, "frozen": frozen, "plain": plain}
    return ways | _onnx(loaded, crop_size)


def _onnx(loaded: LoadedBackbone, crop_size: int) -> dict[str, Callable[[Tensor], object]]:
    """ONNX Runtime as a peer, where it is installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError:
        return {}
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        example = torch.zeros((1, 3, crop_size, crop_size), dtype=torch.uint8)
        torch.onnx.export(
            loaded.backbone, (example,), file.name, dynamo=False, input_names=["crops"], dynamic_axes={"crops": [0]}
        )
        session = onnxruntime.InferenceSession(file.name, providers=["CPUExecutionProvider"])
    return {"onnxruntime": lambda crops: session.run(None, {"crops": crops.contiguous().numpy()})}


def _rate(way: Callable[[Tensor], object], crop_size: int) -> float:
    crops = torch.randint(0, 256, (64, 3, crop_size, crop_size), dtype=torch.uint8)
    crops = crops.contiguous(memory_format=torch.channels_last)
    way(crops)
    began = perf_counter()
    for _ in range(_PROBE // 64):
        way(crops)
    return _PROBE / (perf_counter() - began)


def _decode(dataset: Dataset) -> float:
    began = perf_counter()
    for path in dataset.image_paths[:20]:
        read_frame(path)
    return (perf_counter() - began) / min(20, len(dataset.image_paths))


def _crop(dataset: Dataset, crop_size: int) -> float:
    frames = [read_frame(path) for path in dataset.image_paths[:8]]
    offset = dataset.tables.frame_offset
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    began = perf_counter()
    for index, frame in enumerate(frames):
        crop_people(frame, dataset.tables.box[offset[index] : offset[index + 1]], crop_size)
    seconds = (perf_counter() - began) / int(offset[len(frames)])
    torch.set_num_threads(threads)
    return seconds


def _whole(data: Path, rounds: int) -> tuple[list[tuple[str, str, str]], dict[str, float]]:
    """50 epochs of the guide's frozen preset as a process of its own, from an empty store and again from the store."""
    dataset = read_dataset(data, Selection(1, "all"), 0.0)
    command = [sys.executable, str(ROOT / "train_resnet_stage2.py"), "--freeze_backbone", "--batch_size", "24", "--lr",
               "1e-3", "--weights", "random", "--data_path", str(data), "--device", "cpu", "--epochs", "50",
               "--config", "patient.toml"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "patient.toml").write_text("patience = 100000\n")

        def run(store: bool) -> float:
            for made in ("checkpoints",) if store else ("checkpoints", "stores"):
                shutil.rmtree(Path(folder, made), ignore_errors=True)
            began = perf_counter()
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
            return perf_counter() - began

        ways = {
            "before_seconds_per_pair": lambda: seconds_per_pair(dataset.tables, dataset.image_paths, 160),
            "from images": lambda: run(False),
            "from the store": lambda: run(True),
        }
        figures = interleave(ways, rounds)
    pair, frames = figures["before_seconds_per_pair"], len(dataset.image_paths)
    count = {name: len(split.pairs) for name, split in select_splits(dataset.tables, ResNetStage2Config()).items()}
    old = pair * (50 * (count["train"] + count["val"]) + count["test"])
    pairs = " + ".join(f"{count[name]:,}" for name in ("train", "val", "test"))
    rows = [
        ("the data", f"{frames} frames, {len(dataset.tables.box):,} people, {pairs} pairs (train, val, test)", ""),
        ("the way it was done before", f"{1000 * pair:.1f} ms a pair and epoch", ""),
    ]
    targets = {"from images": ">= 90 times", "from the store": ">= 150 times"}
    rows += [
        (f"50 frozen epochs, {name}, process start included", f"{old / figures[name]:.0f} times as fast", target)
        for name, target in targets.items()
    ]
    return rows, figures | {"before_seconds": old}


if __name__ == "__main__":
    main()
