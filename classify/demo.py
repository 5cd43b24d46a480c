"""The whole workflow on synthetic data, offline: draw -> extract -> train -> evaluate -> report."""

import logging
from dataclasses import dataclass
from pathlib import Path

from classify.inference.predict import PredictOptions, predict
from classify.pipeline import train
from classify.report.html import write_report
from classify.train.run import Run
from configs.errors import DataError
from configs.presets import preset
from configs.process.failures import how_to_continue
from configs.splits import JRDB_SPLIT
from configs.train_options import TrainOptions
from extract.annotations.jrdb import IMAGES, scene_names
from extract.synth.dataset import draw_dataset
from store.outputs import claim_folder

_log = logging.getLogger("stage2")
OVERLAYS = 2  # frames with predictions in the report


@dataclass(frozen=True)
class Demo:
    """The paths of a demo's files."""

    data: Path
    store: Path
    run: Run
    report: Path


def run_demo(out: Path, seed: int) -> Demo:
    """Draws a data set in `out`, extracts it with random weights, trains and tests a head, and writes the report.

    The weights are random so that nothing has to be downloaded; random features already separate walking from
    sitting, though trained ones do so better.

    Raises:
        DataError: `out` is not empty. ConfigError: it is not a folder, or is inside a store.
    """
    claim_folder(out)
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty; delete it, or choose another --out")
    with how_to_continue(lambda: f"; delete {out} and run the same command again", override=True):
        return _run(out, seed)


def _run(out: Path, seed: int) -> Demo:
    data, store = out / "data", out / "features.store"
    _log.info("Drawing a JRDB-format data set in %s", data)
    draw_dataset(data, seed=seed)
    config = preset("resnet18_frozen").config(
        weights="random", data_path=str(data), checkpoint_dir=str(out / "run"), seed=seed, device="cpu"
    )
    run = train(config, TrainOptions(store=str(store)))
    overlays = _draw_predictions(data, run, out)
    return Demo(data, store, run, write_report(run.folder, out / "report.html", overlays))


def _draw_predictions(data: Path, run: Run, out: Path) -> list[Path]:
    """Draws predictions into OVERLAYS frames of a test scene; returns the images."""
    scene = next(name for name in JRDB_SPLIT.test if name in scene_names(data))
    folder = out / "predictions"
    frames = sum(1 for _ in (data / IMAGES / scene).iterdir())
    options = PredictOptions(
        frame_interval=max(1, frames // OVERLAYS), scenes=(scene,), draw=folder, device="cpu", weights="random"
    )
    predict(run.folder, data, folder / "predictions.json", options)
    return sorted((folder / scene).iterdir())
