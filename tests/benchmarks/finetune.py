"""An epoch of fine-tuning compared with the straightforward way: decode, crop and forward both persons of each pair.

python -m tests.benchmarks.finetune [--frames 9] [--rounds 3] [--threads 1] [--clock processor] [--out FILE]

Processor seconds count all threads and worker processes, so they are reliable on a machine with other jobs. With one
compute thread, none of them are spent on waiting.
"""

import resource
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import click
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from classify.data.crop_cache import GIB, CropCache, PersonInputs
from classify.data.crops import CropSource, FrameCrops, StoredCrops
from classify.data.selection import Split
from classify.model.head import Stage2Model, build_head
from classify.model.losses import Objective
from classify.train.autograd_step import AutogradStep
from configs.extraction_config import ExtractionConfig
from configs.resnet_stage2_config import ResNetStage2Config
from extract.backbones.weights import load_resnet
from extract.dataset import Dataset, read_dataset
from extract.job import extract
from extract.synth.dataset import draw_dataset
from store.crops import open_crops
from store.format.manifest import Selection
from tests.benchmarks.baseline import PairImages, PairNet
from tests.benchmarks.measure import interleave, report

CPU = torch.device("cpu")
BATCH, WORKERS = 16, 2
STRAIGHTFORWARD = "the straightforward way"
Clock = Callable[[], float]


@click.command()
@click.option("--frames", default=9)
@click.option("--rounds", default=3)
@click.option("--threads", default=1)
@click.option("--clock", "kind", type=click.Choice(("processor", "wall")), default="processor")
@click.option("--out", type=click.Path(path_type=Path))
def main(frames: int, rounds: int, threads: int, kind: str, out: Path | None) -> None:
    """Prints a table and writes JSON."""
    torch.set_num_threads(threads)
    clock = _processor_seconds if kind == "processor" else perf_counter
    with tempfile.TemporaryDirectory() as folder:
        data = draw_dataset(Path(folder) / "data", scenes=3, frames=frames // 3, people=20)
        dataset = read_dataset(data, Selection(1, "paired"), 0.0)
        store = Path(folder) / "s.store"
        config = ExtractionConfig(str(data), str(store), weights="random", persons="paired", crops=True, device="cpu")
        extract(config)
        seconds = interleave(_measures(dataset, store, clock), rounds)
    pairs, persons = len(dataset.tables.pair), len(np.unique(dataset.tables.pair))
    rows = [("pairs, and people in pairs, per frame", f"{pairs / frames:.1f} and {persons / frames:.1f}", "")]
    rows += [(name, f"{1000 * value / pairs:.1f} {kind} ms per pair", "") for name, value in seconds.items()]
    targets = {
        "from images": "<= 0.6",
        "from images, nothing kept": "",
        "crops in the store": "<= 0.5",
        "crops in memory": "<= 0.5",
    }
    ratios = {name: seconds[name] / seconds[STRAIGHTFORWARD] for name in targets}
    rows += [(f"{name}, of {STRAIGHTFORWARD}", f"{ratio:.2f}", targets[name]) for name, ratio in ratios.items()]
    command = (
        f"python -m tests.benchmarks.finetune --frames {frames} --rounds {rounds} --threads {threads} --clock {kind}"
    )
    report("An unfrozen epoch, resnet18 at 112", rows, {"command": command, "figures": seconds | ratios}, out)


def _measures(dataset: Dataset, store: Path, clock: Clock) -> dict[str, Callable[[], float]]:
    """Seconds of an epoch on the same pairs, for each source of crops."""
    tables = dataset.tables
    split = Split("train", np.arange(len(tables.pair)), tables.label.astype(np.int64) % 3)
    crops = FrameCrops(tables, dataset.image_paths, 112)
    example = torch.empty((1, 3, 112, 112), dtype=torch.uint8)

    def new_cache(budget: int) -> CropCache:
        return CropCache(crops, tables, np.unique(tables.pair), example, budget)

    stored = open_crops(store)  # its rows are those of the data set, since it has the same people
    full = new_cache(GIB)
    full(np.unique(tables.pair))
    return {
        STRAIGHTFORWARD: lambda: _straightforward_seconds(dataset, clock),
        "from images": lambda: _epoch_seconds(dataset, split, new_cache(GIB), clock),
        "from images, nothing kept": lambda: _epoch_seconds(dataset, split, new_cache(0), clock),
        "crops in the store": lambda: _epoch_seconds(dataset, split, StoredCrops(stored, 112), clock),
        "crops in memory": lambda: _epoch_seconds(dataset, split, full, clock),
    }


def _epoch_seconds(dataset: Dataset, split: Split, persons: PersonInputs, clock: Clock) -> float:
    """Seconds of one epoch of the product's training steps, the first step included."""
    config = replace(ResNetStage2Config(), batch_size=BATCH, num_workers=WORKERS, device="cpu")
    torch.manual_seed(0)
    backbone = load_resnet("resnet18", "random", freeze=False)
    model = Stage2Model(backbone, build_head(config, backbone.out_dim)).train()
    step = AutogradStep(model, Objective.from_config(config, (1.0, 1.0, 1.0), CPU), config)
    source = CropSource(dataset.tables, persons, split, config, device=CPU)
    start = clock()
    for batch in source.epoch(torch.Generator().manual_seed(0)):
        step(batch, config.learning_rate)
    return clock() - start


def _straightforward_seconds(dataset: Dataset, clock: Clock) -> float:
    """Seconds of an epoch that decodes, crops and forwards both persons of each pair."""
    data: Any = PairImages(dataset.tables, list(dataset.image_paths), 112)
    torch.manual_seed(0)
    model = PairNet().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    start = clock()
    for a, b, spatial, label in DataLoader(data, BATCH, shuffle=True, num_workers=WORKERS):
        loss = nn.functional.cross_entropy(model(a, b, spatial), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return clock() - start


def _processor_seconds() -> float:
    """Processor seconds of this process and its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


if __name__ == "__main__":
    main()
