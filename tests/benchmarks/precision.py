"""Does a faster precision cost accuracy? Heads on float32 and on other features, over folds of scenes, paired.

python -m tests.benchmarks.precision --data DIR --weights FILE [--backbone resnet18] [--precision int8]
    [--folds 5] [--shuffles 2] [--seeds 2] [--stores DIR] [--out FILE]

Each fold is the test split once, and the next fold the validation split. A shuffle assigns the scenes to other folds.
The two precisions have the same folds and seeds; the MPCA of a fold is the mean over the seeds.
"""

import statistics
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import click
import numpy as np

from classify.train.cached import train_cached
from configs.extraction_config import PRECISIONS, ExtractionConfig
from configs.resnet_stage2_config import BACKBONES, ResNetStage2Config
from configs.splits import SceneSplit
from extract.job import extract
from store.reader import load_store
from store.tables import Features
from tests.benchmarks.measure import Row, report

FLOAT32 = "float32"
NOISE = 2.0  # standard errors


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="JRDB-format folder with many scenes.")
@click.option("--weights", required=True, help="Backbone weights; random ones would say little.")
@click.option("--backbone", type=click.Choice(BACKBONES), default="resnet18")
@click.option("--precision", type=click.Choice(PRECISIONS), default="int8")
@click.option("--folds", default=5)
@click.option("--shuffles", default=2)
@click.option("--seeds", default=2)
@click.option("--stores", type=click.Path(path_type=Path), help="Folder that keeps the extracted stores.")
@click.option("--out", type=click.Path(path_type=Path))
def main(
    data: Path,
    weights: str,
    backbone: str,
    precision: str,
    folds: int,
    shuffles: int,
    seeds: int,
    stores: Path | None,
    out: Path | None,
) -> None:
    """Prints a table and writes JSON."""
    with tempfile.TemporaryDirectory() as folder:
        features = {
            name: _extract(data, weights, backbone, name, stores or Path(folder)) for name in (FLOAT32, precision)
        }
        splits = list(_splits(features[FLOAT32].tables.scenes, folds, shuffles))
        mpca = {name: [_test_mpca(part, split, seeds) for split in splits] for name, part in features.items()}
    differences = [two - one for one, two in zip(mpca[FLOAT32], mpca[precision], strict=True)]
    error = statistics.stdev(differences) / len(differences) ** 0.5
    mean = statistics.mean(differences)
    rows: list[Row] = [(f"test MPCA, {name}", f"{statistics.mean(values):.4f}", "") for name, values in mpca.items()]
    rows.append(
        (f"{precision} - {FLOAT32}, paired", f"{mean:+.4f} +- {error:.4f}", f"within {NOISE:g} standard errors")
    )
    content = {"mpca": mpca, "difference": mean, "standard_error": error, "chance": abs(mean) <= NOISE * error}
    report(
        f"Accuracy in {precision}, {backbone}: {folds} folds x {shuffles} shuffles x {seeds} seeds", rows, content, out
    )


def _extract(data: Path, weights: str, backbone: str, precision: str, folder: Path) -> Features:
    """The features of the people in pairs."""
    path = folder / f"{backbone}-{precision}.store"
    extract(
        ExtractionConfig(
            data_path=str(data), store=str(path), backbone=backbone, weights=weights, precision=precision,
            persons="paired", device="cpu",
        )
    )  # fmt: skip
    return load_store(path)


def _splits(scenes: tuple[str, ...], folds: int, shuffles: int) -> Iterator[SceneSplit]:
    for shuffle, fold in product(range(shuffles), range(folds)):
        order = np.random.default_rng(shuffle).permutation(len(scenes))
        parts = [tuple(scenes[row] for row in part) for part in np.array_split(order, folds)]
        validation = (fold + 1) % folds
        train = tuple(name for part in range(folds) if part not in (fold, validation) for name in parts[part])
        yield SceneSplit(train=train, val=parts[validation], test=parts[fold])


def _test_mpca(features: Features, split: SceneSplit, seeds: int) -> float:
    """The mean test MPCA of heads with different seeds."""
    with tempfile.TemporaryDirectory() as folder:
        configs = [
            ResNetStage2Config(
                split=split, freeze_backbone=True, epochs=12, batch_size=256, learning_rate=1e-3, seed=seed,
                device="cpu", checkpoint_dir=f"{folder}/{seed}",
            )
            for seed in range(seeds)
        ]  # fmt: skip
        runs = train_cached(features, configs, {"name": "benchmark", "weights_sha256": "0"})
        return statistics.mean(float(run.results["test_mpca"]) for run in runs)


if __name__ == "__main__":
    main()
