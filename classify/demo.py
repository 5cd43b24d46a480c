"""The main job on built-in data, offline: draw -> extract -> train -> evaluate -> report."""

import logging
from dataclasses import dataclass
from pathlib import Path

from classify.inference.predict import PredictOptions, predict
from classify.pipeline import train
from classify.report.html import write_report
from classify.train.run import Run
from configs.errors import DataError
from configs.presets import preset
from configs.splits import JRDB_SPLIT
from configs.train_options import TrainOptions
from extract.annotations.jrdb import IMAGES, scene_names
from extract.synth.dataset import draw_dataset

_log = logging.getLogger("stage2")
SHOWN = 2  # frames with predictions drawn in, for the report


@dataclass(frozen=True)
class Demo:
    """Where everything of a demo is."""

    data: Path
    store: Path
    run: Run
    report: Path


def run_demo(out: Path, seed: int) -> Demo:
    """Draws a data set under `out`, extracts it with random weights, trains and tests a head, and writes the report.

    Random weights, because nothing may be downloaded: a random ResNet's features tell walking from sitting, and
    trained ones do it better.

    Raises:
        DataError: `out` exists already.
    """
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty; remove it, or choose another --out")
    data, store = out / "data", out / "features.store"
    _log.info("Drawing a JRDB-format data set into %s", data)
    draw_dataset(data, seed=seed)
    config = preset("resnet18_frozen").config(
        weights="random", data_path=str(data), checkpoint_dir=str(out / "run"), seed=seed, device="cpu"
    )
    run = train(config, TrainOptions(store=str(store)))
    overlays = _draw_predictions(data, run, out)
    return Demo(data, store, run, write_report(run.folder, out / "report.html", overlays))


def _draw_predictions(data: Path, run: Run, out: Path) -> list[Path]:
    """Predictions for a test scene, drawn into a few of its frames."""
    scene = next(name for name in JRDB_SPLIT.test if name in scene_names(data))
    folder = out / "predictions"
    frames = sum(1 for _ in (data / IMAGES / scene).iterdir())
    options = PredictOptions(
        frame_interval=max(1, frames // SHOWN), scenes=(scene,), draw=folder, device="cpu", weights="random"
    )
    predict(run.folder, data, folder / "predictions.json", options)
    return sorted((folder / scene).iterdir())
