"""Head training against plain loops on the same features in memory.

python -m tests.benchmarks.head [--pairs 50000] [--rounds 3] [--out FILE]
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import click
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from classify.data.batches import PairBatch
from classify.data.cached import CachedFeatures, CachedSource
from classify.data.selection import Split
from classify.model.checkpoint import CACHED, RunInfo
from classify.model.head import Stage2Model, build_head
from classify.model.losses import Objective
from classify.run_folder import RunFolder
from classify.train.cpu_settings import threads_for_batch
from classify.train.head_step import HeadState, HeadStep
from classify.train.loop import TrainingRun, fit
from configs.resnet_stage2_config import ResNetStage2Config
from store.tables import Features
from tests.benchmarks.measure import interleave, report
from tests.factories import make_tables

CPU = torch.device("cpu")
DIM = 512
FLOPS = 3e11  # a second: what large matrix products reach on two cores of the machine that the targets are for
SEEDS = 16


@click.command()
@click.option("--pairs", default=50_000)
@click.option("--rounds", default=3)
@click.option("--out", type=click.Path(path_type=Path))
def main(pairs: int, rounds: int, out: Path | None) -> None:
    """Prints a table and writes JSON."""
    features, split = head_data(pairs)
    figures: dict[str, float] = {}
    rows = []
    for batch, most in ((24, pairs // 5), (1024, pairs)):
        part = Split("train", split.pairs[:most], split.labels[:most])
        found = interleave(_ways(features, part, batch), rounds)
        figures |= {f"{name}, batch {batch}": value for name, value in found.items()}
        rows += [(f"{name}, batch {batch}", f"{value:,.0f} pairs/s", "") for name, value in found.items()]
        for peer, target in (("in-memory DataLoader", ">= 2.0"), ("in-memory index loop", ">= 1.3")):
            ratio = found["product"] / found[peer]
            rows.append((f"product / {peer}, batch {batch}", f"{ratio:.2f}", target if batch == 24 else ""))
    work = figures["product, batch 1024"] * _flops(features)
    matmul = interleave({"large matrix product": _matmul}, rounds)["large matrix product"]
    figures |= {"matmul": matmul, "floor_share": work / FLOPS, "matmul_share": work / matmul}
    rows.append(("share of 300 GFLOP/s, batch 1024", f"{work / FLOPS:.0%}", ">= 40 %"))
    rows.append(
        (f"share of what this machine's matrix products reach, {matmul / 1e9:.0f} GFLOP/s", f"{work / matmul:.0%}", "")
    )
    few = Split("train", split.pairs[: pairs // 10], split.labels[: pairs // 10])
    config = head_config(24)
    ways = {f"{count} seeds": lambda count=count: head_rate(features, few, config, count) for count in (1, SEEDS)}
    seconds = interleave({name: lambda way=way: len(few.pairs) / way() for name, way in ways.items()}, rounds)
    figures |= {f"seconds of an epoch, {name}": value for name, value in seconds.items()}
    ratio = seconds[f"{SEEDS} seeds"] / seconds["1 seeds"]
    rows.append((f"{SEEDS} seeds in one pass / one seed, time, batch 24", f"{ratio:.1f}", "<= 4"))
    command = f"python -m tests.benchmarks.head --pairs {pairs} --rounds {rounds}"
    report("Head training", rows, {"command": command, "figures": figures}, out)


def head_data(pairs: int) -> tuple[Features, Split]:
    tables = make_tables(frames=pairs // 40, people=22, pairs=10)
    visual = np.random.default_rng(0).standard_normal((len(tables.box), DIM), dtype=np.float32).astype(np.float16)
    rows = np.arange(len(tables.pair))
    return Features(tables, visual, None, "benchmark"), Split("train", rows, tables.label.astype(np.int64))


def _ways(features: Features, split: Split, batch: int) -> dict[str, Callable[[], float]]:
    config = head_config(batch)
    return {
        "product": lambda: head_rate(features, split, config),
        "in-memory index loop": lambda: _plain(features, split, config, loader=False),
        "in-memory DataLoader": lambda: _plain(features, split, config, loader=True),
    }


def head_config(batch: int) -> ResNetStage2Config:
    return ResNetStage2Config(
        freeze_backbone=True, batch_size=batch, epochs=1, learning_rate=1e-3, log_interval=10**6, device="cpu"
    )


def head_rate(features: Features, split: Split, config: ResNetStage2Config, seeds: int = 1) -> float:
    """Pairs a second of one epoch of `fit`, each pair counted once; the validation is of a handful of pairs."""
    visual = CachedFeatures.load(features, CPU)
    few = Split("val", split.pairs[:24], split.labels[:24])
    sources = [CachedSource(features.tables, visual, part, config.batch_size) for part in (split, few)]
    weight = tuple(1.0 for _ in config.classes)
    objective = Objective.from_config(config, weight, CPU)
    with tempfile.TemporaryDirectory() as folder, threads_for_batch(seeds * config.batch_size):
        states, runs = [], []
        for seed in range(seeds):
            one = replace(config, seed=seed)
            model, path = Stage2Model(nn.Identity(), build_head(one, DIM)), Path(folder) / str(seed)
            path.mkdir()
            states.append(HeadState(model.head, one))
            info = RunInfo(CACHED, one, DIM, {}, "", weight)
            runs.append(TrainingRun(model, states[-1], info, RunFolder(path), "-"))
        began = perf_counter()
        fit(runs, *sources, objective, lambda _: HeadStep(states, objective))
        return len(split.pairs) / (perf_counter() - began)


def _matmul() -> float:
    """Multiply-adds a second, twice, of a large matrix product on all cores."""
    a, size = torch.randn(1536, 1536), 1536
    out = a @ a
    began = perf_counter()
    for _ in range(10):
        torch.mm(a, a, out=out)
    return 10 * 2 * size**3 / (perf_counter() - began)


def _plain(features: Features, split: Split, config: ResNetStage2Config, loader: bool) -> float:
    """Pairs a second of the loop that one writes first: the same head and loss, Adam, float32 rows in memory."""
    visual = torch.from_numpy(features.visual.astype(np.float32))
    pair = torch.from_numpy(features.tables.pair[split.pairs])
    spatial, label = torch.from_numpy(features.tables.spatial[split.pairs]), torch.from_numpy(split.labels)
    model = Stage2Model(nn.Identity(), build_head(config, DIM)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    objective = Objective.from_config(config, tuple(1.0 for _ in config.classes), CPU)
    data = TensorDataset(visual[pair[:, 0]], visual[pair[:, 1]], spatial, label) if loader else None
    began = perf_counter()
    batches = (
        iter(DataLoader(data, config.batch_size, shuffle=True))
        if data is not None
        else ((visual[pair[i, 0]], visual[pair[i, 1]], spatial[i], label[i])
              for i in torch.randperm(len(label)).split(config.batch_size))
    )  # fmt: skip
    total = 0.0
    for a, b, place, y in batches:
        count = len(y)
        batch = PairBatch(torch.cat([a, b]), torch.arange(count), torch.arange(count) + count, place, y)
        logits = model(batch)
        loss = objective.loss(logits, y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total += loss.item() + float((logits.argmax(1) == y).float().mean())
    return len(split.pairs) / (perf_counter() - began)


def _flops(features: Features) -> float:
    """Multiply-adds, twice, of the head's matrices for one pair, forward and backward (three times the forward)."""
    head = build_head(ResNetStage2Config(), features.visual.shape[1])
    person = head.project.weight.numel()
    pair = sum(layer.weight.numel() for layer in (head.place, head.relation, head.classify))
    return 3 * 2 * (2 * person + pair) - 2 * 2 * person  # no gradient flows into the features


if __name__ == "__main__":
    main()
