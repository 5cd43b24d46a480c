"""What every training run begins and ends with: sources and baselines; test, results and pictures."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from classify.data.batches import Source
from classify.data.selection import Split, log_selection
from classify.distributed import wait_for_all
from classify.evaluate.baselines import knn_baseline, majority_baseline, pair_features, spatial_baseline
from classify.evaluate.history import Record
from classify.evaluate.metrics import evaluate
from classify.model.checkpoint import BEST, LAST, load_checkpoint, load_state
from classify.model.head import Stage2Model
from classify.model.losses import Objective, class_weights
from classify.report.log import log_configuration, log_data, log_test
from classify.report.plots import plot_run
from classify.report.results import CONFIG, RESULTS, build_results, write_json
from classify.train.drive import threads_for
from classify.train.fit import Fit, Fitted, fit
from configs.ranks import rank
from configs.resnet_stage2_config import ResNetStage2Config
from store.tables import Tables


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, and the content of its final_results.json."""

    folder: Path
    results: dict[str, Any]


class MakeSource(Protocol):
    """Makes the source of a split's samples; in it lies all that differs between the modes."""

    def __call__(self, split: Split, balanced: bool = False) -> Source: ...


@dataclass(frozen=True)
class Data:
    """What the runs of a training share."""

    splits: dict[str, Split]
    sources: dict[str, Source]
    objective: Objective
    baselines: dict[str, Any]
    seconds: dict[str, float]


def prepare(
    config: ResNetStage2Config,
    weights: tuple[float, ...],
    tables: Tables,
    splits: dict[str, Split],
    source: MakeSource,
    model: Stage2Model,
    knn_pairs: dict[str, int],
) -> Data:
    """The sources of the splits, and the three baselines, the neighbours on what the backbone gives at the start."""
    objective = Objective.from_config(config, weights, model.trainable_parameters()[0].device)
    sources = {name: source(split, name == "train" and config.balance == "sampler") for name, split in splits.items()}
    log_data(splits, sources, config)
    clock = time.monotonic()
    total = len(config.classes)
    pairs = {}
    for name, split in splits.items():
        sample = split.sample(knn_pairs.get(name, len(split.pairs)), config.seed)
        pairs[name] = pair_features(model, source(sample))
    with threads_for(0):
        spatial = spatial_baseline(tables, splits, objective, config.balance == "sampler", config.seed)
    baselines = {
        "majority": majority_baseline(splits, total),
        "spatial_only": spatial,
        "knn": knn_baseline(pairs, total),
    }
    return Data(splits, sources, objective, baselines, {"baselines": time.monotonic() - clock})


def begin(fitted: Fitted, data: Data, *, warm: bool, resume: bool) -> Fit:
    """The fit of a run, from its start or, with `resume`, from where its last.pth left off."""
    wait_for_all()  # rank 0 has opened the folder
    if rank() == 0:
        write_json(fitted.folder / CONFIG, fitted.about.config.to_dict())
    last = load_checkpoint(fitted.folder / LAST, resume=True) if resume and (fitted.folder / LAST).exists() else None
    torch.manual_seed(fitted.about.config.seed)
    return fit(fitted, data.sources["train"], data.sources["val"], data.objective, warm=warm, resume=last)


def finish(fitted: Fitted, data: Data, history: list[Record], seconds: dict[str, float]) -> Run:
    """Test of the best model -> results -> plots."""
    clock = time.monotonic()
    wait_for_all()  # rank 0 has written the best model
    best = load_checkpoint(fitted.folder / BEST)  # what is reported is what is on the disk
    load_state(fitted.model, best.model, BEST)
    test = evaluate(fitted.model, data.sources["test"], data.objective, "test")
    log_test(test, data.baselines, fitted.title)
    seconds = seconds | {"evaluate": time.monotonic() - clock}
    results = build_results(fitted.about, history, test, data.baselines, seconds)
    total = len(fitted.about.config.classes)
    results["pairs_per_class"] = {name: split.counts(total).tolist() for name, split in data.splits.items()}
    if rank() == 0:
        write_json(fitted.folder / RESULTS, results)
        plot_run(fitted.folder, results, history)
    return Run(fitted.folder, results)


def _announce(tables: Tables, splits: dict[str, Split], config: ResNetStage2Config) -> None:
    log_configuration(config)
    log_selection(tables, config, splits)


def _weights(splits: dict[str, Split], config: ResNetStage2Config) -> tuple[float, ...]:
    return class_weights(splits["train"].counts(len(config.classes)), config.balance)


def _spatial(tables: Tables, split: Split, device: torch.device) -> Tensor:
    """(m, 8) float32 spatial features of a split's pairs."""
    return torch.from_numpy(tables.spatial[split.pairs].astype(np.float32)).to(device)
