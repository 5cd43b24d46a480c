"""The cost of a crop, a person, a pair and a query as the job grows by factors of 4 and 16: table, JSON and plot.

python -m tests.benchmarks.growth [--frames 128] [--rounds 3] [--picture FILE.png] [--out FILE]
"""

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import click
import numpy as np

from configs.extraction_config import ExtractionConfig
from extract.backbones.weights import LoadedBackbone, load_backbone
from extract.job import extract_with
from extract.synth.dataset import draw_dataset
from store.index import nearest
from store.reader import load_store
from tests.benchmarks.head import DIM, first_pairs, head_config, head_data, head_rate
from tests.benchmarks.measure import Measurements, interleave, report
from tests.benchmarks.store import write_store

FACTORS = (1, 4, 16)
PERSONS, PAIRS, BANK, QUERIES = 25_000, 3_000, 2_500, 256
TITLES = {
    "extraction": "ms per crop, start-up included",
    "loading": "µs per person, every byte checked",
    "head training": "µs per pair and epoch, batch 24",
    "exact neighbours": "ns per query and row",
}


@click.command()
@click.option("--frames", default=128, help="Frames of the largest extraction.")
@click.option("--rounds", default=3)
@click.option("--picture", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path))
def main(frames: int, rounds: int, picture: Path | None, out: Path | None) -> None:
    """Prints a table and writes JSON and the picture."""
    with tempfile.TemporaryDirectory() as folder:
        costs = interleave(_measures(Path(folder), frames), rounds)
    rows = [
        (f"{name}, {unit}", " / ".join(f"{costs[f'{name} x{factor}']:.3g}" for factor in FACTORS), "flat")
        for name, unit in TITLES.items()
    ]
    command = f"python -m tests.benchmarks.growth --frames {frames} --rounds {rounds}"
    report("Growth: 1 / 4 / 16 times the job", rows, {"command": command, "figures": costs}, out)
    if picture is not None:
        picture.write_bytes(_draw(costs))


def _measures(folder: Path, frames: int) -> dict[str, Callable[[], float]]:
    """The cost of one item for each job and factor, in the unit of its title."""
    data = draw_dataset(folder / "data", scenes=4, frames=frames // 4, people=20)
    loaded = load_backbone("resnet18", "random")
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((FACTORS[-1] * BANK, DIM), dtype=np.float32)
    features, split = head_data(FACTORS[-1] * PAIRS)
    measures: dict[str, Callable[[], float]] = {}
    for factor in FACTORS:
        store = folder / f"{factor}.store"
        write_store(store, factor * PERSONS)
        part = first_pairs(split, factor * PAIRS)
        bank = rows[: factor * BANK]
        interval = FACTORS[-1] // factor
        measures |= {
            f"extraction x{factor}": lambda interval=interval: _extract_ms(data, loaded, interval),
            f"loading x{factor}": lambda store=store: _load_us(store),
            f"head training x{factor}": lambda part=part: 1e6 / head_rate(features, part, head_config(24)),
            f"exact neighbours x{factor}": lambda bank=bank: _search_ns(bank, rows[:QUERIES]),
        }
    return measures


def _extract_ms(data: Path, loaded: LoadedBackbone, interval: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        config = ExtractionConfig(
            data_path=str(data), store=f"{folder}/s", weights="random", frame_interval=interval, device="cpu"
        )
        start = perf_counter()
        summary = extract_with(config, loaded)
        return 1e3 * (perf_counter() - start) / summary.statistics.crops_forwarded


def _load_us(store: Path) -> float:
    start = perf_counter()
    persons = len(load_store(store).visual)
    return 1e6 * (perf_counter() - start) / persons


def _search_ns(
    bank: np.ndarray[tuple[int, int], np.dtype[np.float32]], queries: np.ndarray[tuple[int, int], np.dtype[np.float32]]
) -> float:
    start = perf_counter()
    nearest(bank, queries, 15)
    return 1e9 * (perf_counter() - start) / len(bank) / len(queries)


def _draw(costs: Measurements) -> bytes:
    """A PNG of the cost of one item over the size of the job, relative to the smallest job."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for (name, unit), color in zip(TITLES.items(), ("#2563a8", "#d9722e", "#2f855a", "#7b4fa3"), strict=True):
        series = np.array([costs[f"{name} x{factor}"] for factor in FACTORS])
        label = f"{name}: {series[-1]:.3g} {unit}"
        axes.plot(range(len(FACTORS)), series / series[0], "o-", color=color, label=label, linewidth=2)
    axes.set_xticks(range(len(FACTORS)), [f"{factor}×" for factor in FACTORS])
    axes.set_xlabel("size of the job")
    axes.set_ylabel("cost of one item, smallest job = 1")
    axes.set_ylim(0, 2)
    axes.axhline(1, color="#d5dbe1", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=130)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
