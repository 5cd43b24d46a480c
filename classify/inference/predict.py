"""Predicts the classes of the pairs in new frames, as JRDB-format JSON and as pictures."""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from classify.data.batches import gather_batch
from classify.inference.finished_run import load_run_backbone
from classify.inference.pairing import candidate_pairs, choose_pairing
from classify.inference.pictures import open_pictures, write_pictures
from classify.inference.predictions import Predictions, json_blocks
from classify.model.checkpoint import build_model, load_checkpoint
from classify.run_folder import RunFolder
from configs.classes import PairClass
from configs.errors import ConfigError
from configs.extraction_config import ExtractionConfig
from configs.process.failures import how_to_continue
from extract.backbones.weights import LoadedBackbone
from extract.device import pick_device
from extract.units.plan import PlannedUnit, plan_units
from extract.units.statistics import JobStatistics
from extract.units.stream import stream_shards
from store.files import make_folder, publish_after_check
from store.format.manifest import Selection
from store.format.shard import Shard
from store.outputs import claim_file
from store.tables import Ints

_BATCH = 4096  # pairs
_PICTURES_KEPT = (
    "before --out was written; the pictures so far are whole: run again with --overwrite, which starts from the "
    "beginning"
)


@dataclass(frozen=True)
class PredictOptions:
    """The frames and pairs to predict, and how."""

    pairing: str | None = None  # "labelled", "near" or "all", see `candidate_pairs`; None: see `choose_pairing`
    frame_interval: int = 1
    scenes: tuple[str, ...] = ()  # (): all
    draw: Path | None = None  # folder for pictures
    device: str = "auto"
    panorama: str | None = None  # see `configs.panorama.edges_touch`; None: as in training
    weights: str = ""  # path of the backbone's weights; "": those in the run's configuration
    overwrite: bool = False  # replace an existing output file, and pictures in an existing folder


@dataclass(frozen=True)
class _Job:
    """The model, and the frames and pairs to predict."""

    units: dict[int, PlannedUnit]
    pairing: str
    extraction: ExtractionConfig
    backbone: LoadedBackbone
    head: nn.Module
    classes: tuple[PairClass, ...]


def predict(run: Path, data_path: Path, out: Path, options: PredictOptions) -> dict[str, int]:
    """Predicts the pairs of every frame; writes pictures if requested, and then `out`. Returns counts.

    `out` contains {"scenes": {scene: {"labels": ...}}}, each scene in JRDB format. Each pair is listed with its first
    person and has `probabilities` in addition to its label. The content is written while the shards are computed, into
    a temporary file that becomes `out` when it is complete.

    Raises:
        ConfigError: an option is out of range, or an output may not be written; see `claim_file`, `open_pictures`.
        LockedError: another job is drawing into the same folder.
        CheckpointError, WeightsError, MismatchError, DataError, DeviceError, StorageError.
    """
    extraction = ExtractionConfig(
        data_path=str(data_path), dtype="float32", device=options.device, frame_interval=options.frame_interval
    )
    inputs = (data_path / "images", data_path / "labels", *RunFolder(run).files)
    claim_file(out, overwrite=options.overwrite, inputs=inputs)
    if options.draw is not None and options.draw.resolve() == data_path.resolve():
        raise ConfigError(f"--draw {options.draw} is the data folder, an input; name another folder")
    job = _load_job(run, extraction, options)
    draw, units = options.draw, job.units.values()
    pictures = open_pictures(draw, units, out, overwrite=options.overwrite, inputs=inputs) if draw else nullcontext()
    with pictures, how_to_continue(lambda: _PICTURES_KEPT) if draw else nullcontext():
        make_folder(out.parent)
        return _write(job, out, options)


def _load_job(run: Path, extraction: ExtractionConfig, options: PredictOptions) -> _Job:
    data_path = Path(extraction.data_path)
    checkpoint = load_checkpoint(RunFolder(run).best_model)
    config = checkpoint.info.config
    units = plan_units(data_path, Selection(extraction.frame_interval, "all"), options.scenes)
    return _Job(
        units=dict(enumerate(units)),
        pairing=choose_pairing(options.pairing, units, data_path),
        extraction=replace(
            extraction,
            backbone=config.backbone_name,
            crop_size=config.crop_size,
            panorama=options.panorama or config.panorama,
        ),
        backbone=load_run_backbone(run, checkpoint, options.weights),
        head=build_model(checkpoint, nn.Identity()).to(pick_device(extraction.device)),
        classes=config.classes,
    )


def _write(job: _Job, out: Path, options: PredictOptions) -> dict[str, int]:
    """Writes the pictures and `out`; returns counts."""
    counts = {"frames": 0, "persons": 0, "pairs": 0}
    folders = [options.draw] if options.draw else []

    def blocks() -> Iterator[bytes]:
        counts.update(dict.fromkeys(counts, 0))
        shards = _count(_predict_shards(job), counts)
        # The content is made a second time if the disk fails to write it. The pictures are then complete.
        return json_blocks(_draw(shards, job, folders.pop()) if folders else shards)

    with publish_after_check(out, blocks):
        claim_file(out, overwrite=options.overwrite)  # it may have appeared since the job began
    return counts


def _count(shards: Iterable[Predictions], counts: dict[str, int]) -> Iterator[Predictions]:
    for predictions in shards:
        counts["frames"] += len(predictions.shard.frame_name)
        counts["persons"] += len(predictions.shard.box)
        counts["pairs"] += len(predictions.pair)
        yield predictions


def _draw(shards: Iterable[Predictions], job: _Job, folder: Path) -> Iterator[Predictions]:
    for predictions in shards:
        write_pictures(predictions, Path(job.extraction.data_path), folder)
        yield predictions


def _predict_shards(job: _Job) -> Iterator[Predictions]:
    for number, shard in stream_shards(job.units, job.extraction, job.backbone, JobStatistics()):
        people = _people_per_frame(job.units[number], shard)
        pair, spatial = candidate_pairs(shard, people, job.pairing, job.extraction.panorama)
        probability = _probabilities(job, shard, pair, torch.from_numpy(spatial.copy()))
        yield Predictions(shard, pair, probability, job.classes, job.extraction.panorama)


def _people_per_frame(unit: PlannedUnit, shard: Shard) -> Ints:
    """(F,) how many people each frame of `shard` has, those without a usable crop included."""
    people = dict(zip(unit.tables.frame_name.tolist(), unit.people_per_frame.tolist(), strict=True))
    return np.array([people[name] for name in shard.frame_name.tolist()], np.int64)


@torch.no_grad()
def _probabilities(job: _Job, shard: Shard, pair: Ints, spatial: Tensor) -> Tensor:
    """(M, C) float32 on the CPU."""
    device = pick_device(job.extraction.device)
    features = torch.tensor(shard.visual, device=device)
    rows = torch.from_numpy(pair.T.copy()).to(device)  # (2, M)
    unknown = torch.zeros(len(pair), dtype=torch.int64, device=device)  # labels, which the model does not read
    probabilities = []
    for start in range(0, max(len(pair), 1), _BATCH):
        pairs = slice(start, start + _BATCH)
        batch = gather_batch(features, rows[:, pairs], spatial[pairs].to(device), unknown[pairs])
        probabilities.append(job.head(batch).softmax(1).cpu())
    return torch.cat(probabilities)
