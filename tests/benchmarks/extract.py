"""Extraction compared with the limit set by its parts, and a whole run with the straightforward way.

python -m tests.benchmarks.extract [--frames 120] [--backbone resnet18] [--crop_size 112] [--rounds 3] [--data DIR]
    [--no-steady] [--precision int8] [--no-before] [--out FILE]
"""

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
from configs.extraction_config import PRECISIONS
from configs.resnet_stage2_config import ResNetStage2Config
from extract.backbones.forward import frozen_forward
from extract.backbones.weights import LoadedBackbone, load_backbone
from extract.dataset import Dataset, read_dataset
from extract.images.crops import crop_people
from extract.images.read import read_frame
from extract.synth.dataset import draw_dataset
from extract.units.collect import CPU_SIZES
from extract.units.workers import single_threaded_pool
from store.format.manifest import Selection
from tests.benchmarks.baseline import seconds_per_pair
from tests.benchmarks.job_rate import job_rate, measure_precision, process_rate, script_rate
from tests.benchmarks.measure import Measurements, Row, interleave, report, seconds_of

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
_PROBE = 256  # crops that a forward pass alone is measured on


@click.command()
@click.option("--frames", default=120)
@click.option("--backbone", default="resnet18")
@click.option("--crop_size", default=112)
@click.option("--rounds", default=3)
@click.option("--steady/--no-steady", default=True, help="Compare the job with the limit of its parts.")
@click.option("--precision", type=click.Choice(PRECISIONS), help="Compare the job in this precision with float32.")
@click.option("--before/--no-before", default=True, help="Compare 50 epochs with the straightforward way.")
@click.option("--data", type=click.Path(path_type=Path), help="JRDB-format folder to use instead of drawn data.")
@click.option("--out", type=click.Path(path_type=Path))
def main(
    frames: int,
    backbone: str,
    crop_size: int,
    rounds: int,
    steady: bool,
    precision: str | None,
    before: bool,
    data: Path | None,
    out: Path | None,
) -> None:
    """Prints a table and writes JSON."""
    rows: list[Row] = []
    values: Measurements = {}
    with tempfile.TemporaryDirectory() as folder:
        data = data or draw_dataset(Path(folder) / "data", scenes=6, frames=frames // 6, people=22)
        if steady:
            rows, values = _measure_job(data, load_backbone(backbone, "random"), crop_size, rounds)
        if precision is not None:
            more_rows, more = measure_precision(data, load_backbone(backbone, "random"), crop_size, precision, rounds)
            rows, values = rows + more_rows, values | more
        if before:
            run_rows, run_values = _measure_run(data, rounds)
            rows, values = rows + run_rows, values | run_values
    command = f"python -m tests.benchmarks.extract --frames {frames} --backbone {backbone} --crop_size {crop_size}"
    report(f"Extraction, {backbone} at {crop_size}", rows, {"command": command, "figures": values}, out)


def _measure_job(data: Path, loaded: LoadedBackbone, crop_size: int, rounds: int) -> tuple[list[Row], dict[str, float]]:
    """Measures the extraction job, the whole command, and the parts of an extraction alone.

    The limit in crops per second is 1 / (1 / best forward pass + decoding / people per frame + cropping).
    """
    dataset = read_dataset(data, Selection(1, "all"), 0.0)
    crops = len(dataset.tables.box)
    people = crops / len(dataset.image_paths)
    peaks: list[float] = []  # GB
    measures: dict[str, Callable[[], float]] = {
        "job": lambda: job_rate(data, loaded, crop_size),
        "process": lambda: process_rate(data, loaded, crop_size, peaks),
        "plain script": lambda: script_rate(data, loaded, crop_size, crops),
        "decode": lambda: _decode_seconds(dataset),
        "crop": lambda: _crop_seconds(dataset, crop_size),
    }
    forwards = _forward_passes(loaded, crop_size)
    measures |= {
        f"forward pass, {name}": lambda run=run: _forward_rate(run, crop_size) for name, run in forwards.items()
    }
    values = interleave(measures, rounds)
    best = max(value for name, value in values.items() if name.startswith("forward"))
    limit = 1 / (1 / best + values["decode"] / people + values["crop"])
    start = crops / values["process"] - crops / values["job"]
    values |= {"people": people, "crops": crops, "limit": limit, "start_seconds": start}
    values |= {"fraction": values["job"] / limit, "process_fraction": values["process"] / limit}
    values["peak_gb"] = max(peaks)
    command = f"the command `stage2 extract` on {crops:,} crops"
    rows = [(f"{name} (alone)", f"{value:.0f} crops/s", "") for name, value in values.items() if "forward" in name]
    rows += [
        ("decoding, one thread", f"{1000 * values['decode']:.1f} ms per frame of {people:.1f} people", ""),
        ("cropping, one thread", f"{1000 * values['crop']:.3f} ms per person", ""),
        ("the job, store and fsyncs included", f"{values['job']:.0f} crops/s", ""),
        ("the job as a share of the limit of its parts", f"{values['fraction']:.2f}", ">= 0.90"),
        (f"{command}, share of that limit", f"{values['process_fraction']:.2f}", ">= 0.85"),
        ("tests/benchmarks/plain_script.py, whole process", f"{values['plain script']:.0f} crops/s", ""),
        ("the command / the plain script", f"{values['process'] / values['plain script']:.2f}", ""),
        ("the start-up of the command: imports, weights, plan, freezing", f"{start:.1f} s", "< 6 s"),
        ("its peak memory", f"{values['peak_gb']:.2f} GB", "< 1.5 GB"),
    ]
    return rows, values


def _forward_passes(loaded: LoadedBackbone, crop_size: int) -> dict[str, Callable[[Tensor], object]]:
    """Functions that forward a batch: the product's with one thread per core and on all cores, and its peers."""
    frozen = frozen_forward(loaded.backbone, crop_size, CPU, "float32")
    pool = single_threaded_pool(torch.get_num_threads())

    def one_thread_per_core(crops: Tensor) -> object:
        return list(pool.map(frozen, crops.split(CPU_SIZES[0])))

    def plain(crops: Tensor) -> object:
        with torch.inference_mode():
            return loaded.backbone(crops)

    passes: dict[str, Callable[[Tensor], object]] = {
        "one thread per core": one_thread_per_core,
        "all cores": frozen,
        "plain PyTorch": plain,
    }
    return passes | _onnx(loaded, crop_size)


def _onnx(loaded: LoadedBackbone, crop_size: int) -> dict[str, Callable[[Tensor], object]]:
    """ONNX Runtime, if it is installed."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError:
        return {}
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        example = torch.zeros((1, 3, crop_size, crop_size), dtype=torch.uint8)
        shapes = ({0: torch.export.Dim.DYNAMIC},)
        torch.onnx.export(
            loaded.backbone, (example.expand(2, -1, -1, -1),), file.name, dynamo=True, input_names=["crops"],
            dynamic_shapes=shapes, verbose=False,
        )  # fmt: skip
        session = onnxruntime.InferenceSession(file.name, providers=["CPUExecutionProvider"])
    return {"ONNX Runtime": lambda crops: session.run(None, {"crops": crops.contiguous().numpy()})}


def _forward_rate(forward: Callable[[Tensor], object], crop_size: int) -> float:
    """Crops per second of a forward pass in batches of 64."""
    crops = torch.randint(0, 256, (64, 3, crop_size, crop_size), dtype=torch.uint8)
    crops = crops.contiguous(memory_format=torch.channels_last)
    forward(crops)  # the first call initialises
    start = perf_counter()
    for _ in range(_PROBE // 64):
        forward(crops)
    return _PROBE / (perf_counter() - start)


def _decode_seconds(dataset: Dataset) -> float:
    """Seconds to decode a frame in one thread."""
    start = perf_counter()
    for path in dataset.image_paths[:20]:
        read_frame(path)
    return (perf_counter() - start) / min(20, len(dataset.image_paths))


def _crop_seconds(dataset: Dataset, crop_size: int) -> float:
    """Seconds to crop a person in one thread."""
    frames = [read_frame(path) for path in dataset.image_paths[:8]]
    offset = dataset.tables.frame_offset
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    start = perf_counter()
    for index, frame in enumerate(frames):
        crop_people(frame, dataset.tables.box[offset[index] : offset[index + 1]], crop_size)
    seconds = (perf_counter() - start) / int(offset[len(frames)])
    torch.set_num_threads(threads)
    return seconds


def _measure_run(data: Path, rounds: int) -> tuple[list[Row], dict[str, float]]:
    """Measures 50 epochs of the frozen preset in a new process, without a store and with the store of the first run."""
    dataset = read_dataset(data, Selection(1, "all"), 0.0)
    command = [sys.executable, str(ROOT / "train_resnet_stage2.py"), "--freeze_backbone", "--batch_size", "24", "--lr",
               "1e-3", "--weights", "random", "--data_path", str(data), "--device", "cpu", "--epochs", "50",
               "--config", "patient.toml"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "patient.toml").write_text("patience = 100000\n")

        def run_seconds(*outputs: str) -> float:
            for output in outputs:
                shutil.rmtree(Path(folder, output), ignore_errors=True)
            return seconds_of(lambda: subprocess.run(command, cwd=folder, check=True, capture_output=True))

        measures = {
            "before_seconds_per_pair": lambda: seconds_per_pair(dataset.tables, dataset.image_paths, 160),
            "from images": lambda: run_seconds("checkpoints", "stores"),
            "from the store": lambda: run_seconds("checkpoints"),
        }
        values = interleave(measures, rounds)
    pair, frames = values["before_seconds_per_pair"], len(dataset.image_paths)
    count = {name: len(split.pairs) for name, split in select_splits(dataset.tables, ResNetStage2Config()).items()}
    before = pair * (50 * (count["train"] + count["val"]) + count["test"])
    pairs = " + ".join(f"{count[name]:,}" for name in ("train", "val", "test"))
    rows = [
        ("the data", f"{frames} frames, {len(dataset.tables.box):,} people, {pairs} pairs (train, val, test)", ""),
        ("the straightforward way", f"{1000 * pair:.1f} ms per pair and epoch", ""),
    ]
    targets = {"from images": ">= 90 times", "from the store": ">= 150 times"}
    rows += [
        (f"50 frozen epochs, {name}, process start included", f"{before / values[name]:.0f} times as fast", target)
        for name, target in targets.items()
    ]
    return rows, values | {"before_seconds": before}


if __name__ == "__main__":
    main()
