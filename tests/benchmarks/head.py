"""Head training compared with plain loops on the same features in memory.

python -m tests.benchmarks.head [--pairs 50000] [--rounds 3] [--out FILE]
"""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from classify.data.batches import PairBatch
from classify.data.cached import CachedFeatures, CachedSource
from classify.data.selection import Split
from classify.model.checkpoint import CACHED, RunInfo
from classify.model.head import Stage2Model, build_head
from classify.model.losses import Objective
from classify.run_folder import RunFolder
from classify.train.cpu_settings import keep_freed_memory, threads_for_batch
from classify.train.head_step import HeadState, HeadStep
from classify.train.loop import TrainingRun, fit
from configs.resnet_stage2_config import ResNetStage2Config
from store.tables import Features
from tests.benchmarks.measure import Measurements, Row, interleave, report
from tests.factories import make_tables

CPU = torch.device("cpu")
DIM = 512
FLOPS = 3e11  # per second: large matrix products on two cores of the machine that the targets are for
SEEDS = 16
PRODUCT, LOOP, LOADER = "product", "in-memory index loop", "in-memory DataLoader"


@click.command()
@click.option("--pairs", default=50_000)
@click.option("--rounds", default=3)
@click.option("--out", type=click.Path(path_type=Path))
def main(pairs: int, rounds: int, out: Path | None) -> None:
    """Prints a table and writes JSON."""
    features, split = head_data(pairs)
    values: Measurements = {}
    rows: list[Row] = []
    for batch, count in ((24, pairs // 5), (1024, pairs)):
        rates = interleave(_measures(features, first_pairs(split, count), batch), rounds)
        values |= {f"{name}, batch {batch}": rate for name, rate in rates.items()}
        rows += [(f"{name}, batch {batch}", f"{rate:,.0f} pairs/s", "") for name, rate in rates.items()]
        for peer, target in ((LOADER, ">= 2.0"), (LOOP, ">= 1.3")):
            ratio = rates[PRODUCT] / rates[peer]
            rows.append((f"product / {peer}, batch {batch}", f"{ratio:.2f}", target if batch == 24 else ""))
    work = values[f"{PRODUCT}, batch 1024"] * _flops(features)
    matmul = interleave({"large matrix product": _matmul}, rounds)["large matrix product"]
    values |= {"matmul": matmul, "floor_share": work / FLOPS, "matmul_share": work / matmul}
    rows.append(("share of 300 GFLOP/s, batch 1024", f"{work / FLOPS:.0%}", ">= 40 %"))
    rows.append((f"share of this machine's matrix products, {matmul / 1e9:.0f} GFLOP/s", f"{work / matmul:.0%}", ""))
    seconds = interleave(_seeds_measures(features, first_pairs(split, pairs // 10)), rounds)
    values |= {f"seconds of an epoch, {name}": value for name, value in seconds.items()}
    ratio = seconds[f"{SEEDS} seeds"] / seconds["1 seeds"]
    rows.append((f"{SEEDS} seeds in one pass / one seed, time, batch 24", f"{ratio:.1f}", "<= 4"))
    command = f"python -m tests.benchmarks.head --pairs {pairs} --rounds {rounds}"
    report("Head training", rows, {"command": command, "figures": values}, out)


def head_data(pairs: int) -> tuple[Features, Split]:
    """Random features (N, 512) float16 of 22 people per frame, and a split of all pairs."""
    tables = make_tables(frames=pairs // 40, people=22, pairs=10)
    visual = np.random.default_rng(0).standard_normal((len(tables.box), DIM), dtype=np.float32).astype(np.float16)
    rows = np.arange(len(tables.pair))
    return Features(tables, visual, None, "benchmark"), Split("train", rows, tables.label.astype(np.int64))


def first_pairs(split: Split, count: int, name: str = "train") -> Split:
    """The first `count` pairs of a split."""
    return Split(name, split.pairs[:count], split.labels[:count])


def _measures(features: Features, split: Split, batch: int) -> dict[str, Callable[[], float]]:
    """Pairs per second of the product and of two plain loops."""
    config = head_config(batch)
    return {
        PRODUCT: lambda: head_rate(features, split, config),
        LOOP: lambda: _plain_rate(features, split, config, loader=False),
        LOADER: lambda: _plain_rate(features, split, config, loader=True),
    }


def _seeds_measures(features: Features, split: Split) -> dict[str, Callable[[], float]]:
    """Seconds of an epoch of one seed, and of several seeds that train together."""
    config = head_config(24)
    return {
        f"{count} seeds": lambda count=count: len(split.pairs) / head_rate(features, split, config, count)
        for count in (1, SEEDS)
    }


def head_config(batch: int) -> ResNetStage2Config:
    """One epoch of the head alone, without log lines."""
    return ResNetStage2Config(
        freeze_backbone=True, batch_size=batch, epochs=1, learning_rate=1e-3, log_interval=10**6, device="cpu"
    )


def head_rate(features: Features, split: Split, config: ResNetStage2Config, seeds: int = 1) -> float:
    """Pairs per second of one epoch of the product's `fit`. Validation uses 24 pairs.

    A pair counts once, however many seeds train on it.
    """
    visual = CachedFeatures.load(features, CPU)
    train = CachedSource(features.tables, visual, split, config.batch_size)
    val = CachedSource(features.tables, visual, first_pairs(split, 24, "val"), config.batch_size)
    weight = tuple(1.0 for _ in config.classes)
    objective = Objective.from_config(config, weight, CPU)
    with tempfile.TemporaryDirectory() as folder, threads_for_batch(seeds * config.batch_size):
        states, runs = [], []
        for seed in range(seeds):
            seeded = replace(config, seed=seed)
            model, path = Stage2Model(nn.Identity(), build_head(seeded, DIM)), Path(folder) / str(seed)
            path.mkdir()
            states.append(HeadState(model.head, seeded))
            info = RunInfo(CACHED, seeded, DIM, {}, "", weight)
            runs.append(TrainingRun(model, states[-1], info, RunFolder(path), "-"))
        start = perf_counter()
        keep_freed_memory()
        fit(runs, train, val, objective, lambda _: HeadStep(states, objective))
        return len(split.pairs) / (perf_counter() - start)


def _matmul() -> float:
    """FLOP per second of a large matrix product on all cores; a multiply-add counts as 2."""
    size = 1536
    a = torch.randn(size, size)
    out = a @ a
    start = perf_counter()
    for _ in range(10):
        torch.mm(a, a, out=out)
    return 10 * 2 * size**3 / (perf_counter() - start)


def _plain_rate(features: Features, split: Split, config: ResNetStage2Config, loader: bool) -> float:
    """Pairs per second of a plain training loop: the same head and loss, Adam, float32 rows in memory."""
    visual = torch.from_numpy(features.visual.astype(np.float32))
    pair = torch.from_numpy(features.tables.pair[split.pairs])
    spatial, label = torch.from_numpy(features.tables.spatial[split.pairs]), torch.from_numpy(split.labels)
    model = Stage2Model(nn.Identity(), build_head(config, DIM)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    objective = Objective.from_config(config, tuple(1.0 for _ in config.classes), CPU)
    data = TensorDataset(visual[pair[:, 0]], visual[pair[:, 1]], spatial, label) if loader else None
    start = perf_counter()
    batches: Iterable[list[Tensor]] = (
        DataLoader(data, config.batch_size, shuffle=True)
        if data is not None
        else (
            [visual[pair[rows, 0]], visual[pair[rows, 1]], spatial[rows], label[rows]]
            for rows in torch.randperm(len(label)).split(config.batch_size)
        )
    )
    total = 0.0
    for a, b, batch_spatial, batch_label in batches:
        rows = torch.arange(len(batch_label))
        batch = PairBatch(torch.cat([a, b]), rows, rows + len(rows), batch_spatial, batch_label)
        logits = model(batch)
        loss = objective.loss(logits, batch_label)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += loss.item() + float((logits.argmax(1) == batch_label).float().mean())
    return len(split.pairs) / (perf_counter() - start)


def _flops(features: Features) -> float:
    """FLOP of the head's matrix products for one pair, forward and backward; a multiply-add counts as 2."""
    head = build_head(ResNetStage2Config(), features.visual.shape[1])
    person = head.project.weight.numel()
    pair = sum(layer.weight.numel() for layer in (head.place, head.relation, head.classify))
    return 3 * 2 * (2 * person + pair) - 2 * 2 * person  # the features need no gradient


if __name__ == "__main__":
    main()
