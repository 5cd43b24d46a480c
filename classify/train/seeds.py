"""The same run with several seeds: how much of a figure is luck."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from classify.model.checkpoint import BEST
from classify.report.results import CONFIG, RESULTS, write_json
from classify.run_folder import open_run_folder
from classify.train.run import Run
from configs.errors import ConfigError
from configs.ranks import rank
from configs.resnet_stage2_config import ResNetStage2Config
from store.files import publish

FIGURES = ("test_accuracy", "test_mpca", "best_val_accuracy", "best_val_mpca")


def train_seeds(
    config: ResNetStage2Config,
    seeds: int,
    train: Callable[[list[ResNetStage2Config]], list[Run]],
    *,
    overwrite: bool = False,
    resume: bool = False,
) -> Run:
    """Has `train` run the configuration with its seed and the `seeds` - 1 after it, each in a folder of its own.

    The folder above them gets the model and results of the run with the best validation MPCA; its final_results.json
    holds beside them `seeds`: the mean, standard deviation (n - 1) and values of each figure.

    Raises:
        ConfigError: `seeds` is below 1, or the folder already holds a run.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds is {seeds}; it must be at least 1")
    folder = open_run_folder(config, overwrite, resume).path
    numbers = range(config.seed, config.seed + seeds)
    runs = train([replace(config, seed=seed, checkpoint_dir=str(folder / f"seed-{seed}")) for seed in numbers])
    best = max(runs, key=lambda run: float(run.results["best_val_mpca"]))
    results = best.results | {"seeds": _spread(runs, best)}
    if rank() == 0:
        for name in (BEST, CONFIG, "metrics.jsonl", "confusion_matrix.png", "curves.png"):
            _copy(best.folder / name, folder / name)
        write_json(folder / RESULTS, results)
    return Run(folder, results)


def _spread(runs: list[Run], best: Run) -> dict[str, Any]:
    spread: dict[str, Any] = {"count": len(runs), "best": best.folder.name}
    for name in FIGURES:
        values = [float(run.results[name]) for run in runs]
        spread[name] = {"mean": mean(values), "std": stdev(values) if len(values) > 1 else 0.0, "values": values}
    return spread


def _copy(source: Path, target: Path) -> None:
    if source.exists():
        publish(target, source.read_bytes())
