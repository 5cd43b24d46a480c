"""The same run with several seeds: how much the metrics vary by chance."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from classify.open_run import continue_advice, open_run_folder
from classify.report.results import write_json
from classify.run_folder import RunFolder
from classify.train.run import Run
from configs.errors import ConfigError
from configs.process.failures import how_to_continue
from configs.ranks import rank
from configs.read_file import TENSOR_BYTES, read_file
from configs.resnet_stage2_config import ResNetStage2Config
from store.files import publish, remove_file

METRICS = ("test_accuracy", "test_mpca", "best_val_accuracy", "best_val_mpca")


def train_seeds(
    config: ResNetStage2Config,
    seeds: int,
    train: Callable[[list[ResNetStage2Config], RunFolder], list[Run]],
    *,
    overwrite: bool = False,
    resume: bool = False,
) -> Run:
    """Trains the configuration with its seed and the next `seeds` - 1, each in a folder seed-<seed> of its own.

    The parent folder gets the model and results of the run with the best validation MPCA. Its final_results.json also
    holds `seeds`: mean, standard deviation (n - 1) and values of each metric.

    With `resume`, finished seeds are only tested again, and seeds that the folder does not hold yet are added.

    Args:
        train: trains the given configurations; also gets the open folder of all seeds.

    Raises:
        ConfigError: `seeds` is below 1, or the folder already holds a run, with `resume` of one seed or other seeds.
    """
    if seeds < 1:
        raise ConfigError(f"--seeds is {seeds}; it must be at least 1")
    numbers = range(config.seed, config.seed + seeds)
    with (
        open_run_folder(config, overwrite, resume, seeds=numbers) as folder,
        how_to_continue(lambda: continue_advice(folder, options=f"--seeds {seeds} "), override=True),
    ):
        homes = {seed: str(folder.seed(seed).home) for seed in numbers}
        runs = train([replace(config, seed=seed, checkpoint_dir=home) for seed, home in homes.items()], folder)
        best = max(runs, key=lambda run: float(run.results["best_val_mpca"]))
        results = best.results | {"seeds": _statistics(runs, best)}
        if rank() == 0:
            remove_file(folder.results)  # of fewer seeds; a kill must not leave it beside another model
            _copy_run(RunFolder(best.folder), folder)
            write_json(folder.results, results)
    return Run(folder.path, results)


def _statistics(runs: list[Run], best: Run) -> dict[str, Any]:
    statistics: dict[str, Any] = {"count": len(runs), "best": best.folder.name}
    for name in METRICS:
        values = [float(run.results[name]) for run in runs]
        statistics[name] = {"mean": mean(values), "std": stdev(values) if len(values) > 1 else 0.0, "values": values}
    return statistics


def _copy_run(source: RunFolder, target: RunFolder) -> None:
    """Copies the best model and what describes it; the results are written with the statistics added."""
    _copy(source.best_model, target.best_model)
    _copy(source.config, target.config)
    _copy(source.metrics, target.metrics)
    _copy(source.confusion_matrix, target.confusion_matrix)
    _copy(source.curves, target.curves)


def _copy(source: Path, target: Path) -> None:
    if source.exists():  # without matplotlib there are no plots
        publish(target, read_file(source, max_bytes=TENSOR_BYTES, follow_links=False))
