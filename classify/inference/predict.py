"""Predicts the classes of the pairs in new frames, as JRDB-format JSON and as pictures."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from classify.data.batches import gather_batch
from classify.inference.finished_run import load_run_backbone
from classify.inference.pairing import LABELLED, candidate_pairs, choose_pairing, without_labelled_pairs
from classify.inference.pictures import open_pictures, write_pictures
from classify.inference.precision_notice import log_precision
from classify.inference.predictions import Predictions, json_blocks
from classify.model.checkpoint import build_model, load_checkpoint
from classify.replacement import find_run
from configs.classes import PairClass
from configs.errors import ConfigError
from configs.extraction_config import ExtractionConfig
from configs.process.failures import how_to_continue
from extract.backbones.weights import LoadedBackbone
from extract.device import pick_device
from extract.units.plan import PlannedUnit, plan_units
from extract.units.skips import check_skip_limit, ledger_before_reading, shard_ledger
from extract.units.statistics import JobStatistics
from extract.units.stream import stream_shards
from store.files import make_folder, publish_after_check
from store.format.ledger import Ledger, damage_text
from store.format.manifest import Selection
from store.format.shard import Shard
from store.outputs import claim_file
from store.tables import Ints

_BATCH = 4096  # pairs
_PICTURES_KEPT = (
    "before --out was written; the pictures so far are whole: run again with --overwrite, which starts from the "
    "beginning"
)

_log = logging.getLogger("stage2")


@dataclass(frozen=True)
class PredictOptions:
    """The frames and pairs to predict, and how."""

    pairing: str | None = None  # "labelled", "near" or "all", see `candidate_pairs`; None: see `choose_pairing`
    frame_interval: int = 1
    scenes: tuple[str, ...] = ()  # (): all
    max_skipped: float = 0.01  # largest share of damaged frames, persons or pairs
    draw: Path | None = None  # folder for pictures
    device: str = "auto"
    panorama: str | None = None  # see `configs.panorama.edges_touch`; None: as in training
    weights: str = ""  # path of the backbone's weights; "": those in the run's configuration
    overwrite: bool = False  # replace an existing output file, and pictures in an existing folder


@dataclass(frozen=True)
class _Job:
    """The model, and the frames and pairs to predict."""

    units: dict[int, PlannedUnit]
    planned: Mapping[str, int]  # kind -> count; pairs only if the labelled ones are predicted
    pairing: str
    extraction: ExtractionConfig
    backbone: LoadedBackbone
    head: nn.Module
    classes: tuple[PairClass, ...]


def predict(run: Path, data_path: Path, out: Path, options: PredictOptions) -> dict[str, Any]:
    """Predicts the pairs of every frame; writes pictures if requested, and then `out`.

    `out` contains {"scenes": {scene: {"labels": ...}}}, each scene in JRDB format. Each pair is listed with its first
    person and has `probabilities` in addition to its label. The content is written while the shards are computed, into
    a temporary file that becomes `out` when it is complete.

    Returns:
        The numbers of `frames`, `persons` and `pairs` in `out`, its path, the `pairing`, and as `data` the ledger (see
        `Ledger.to_dict`). If the pairing is not "labelled", the planned pairs are the predicted ones.

    Raises:
        ConfigError: an option is out of range, or an output may not be written; see `claim_file`, `open_pictures`.
        TooManySkippedError: more than the share `max_skipped` of the frames, persons or labelled pairs is damaged.
        LockedError: another job is drawing into the same folder.
        CheckpointError, WeightsError, MismatchError, DataError, DeviceError, StorageError.
    """
    extraction = ExtractionConfig(
        data_path=str(data_path),
        dtype="float32",
        frame_interval=options.frame_interval,
        max_skipped=options.max_skipped,
        device=options.device,
    )
    inputs = (data_path / "images", data_path / "labels", *find_run(run).files)
    claim_file(out, overwrite=options.overwrite, inputs=inputs)
    if options.draw is not None and options.draw.resolve() == data_path.resolve():
        raise ConfigError(f"--draw {options.draw} is the data folder, an input; name another folder")
    job = _load_job(run, extraction, options)
    draw, units = options.draw, job.units.values()
    pictures = open_pictures(draw, units, out, overwrite=options.overwrite, inputs=inputs) if draw else nullcontext()
    with pictures, how_to_continue(lambda: _PICTURES_KEPT) if draw else nullcontext():
        make_folder(out.parent)
        ledger = _write(job, out, options)
    for line in ledger.lines():
        _log.info("%s", line)
    counts = {f"{kind}s": count for kind, count in ledger.used.items()}
    return counts | {"out": str(out), "pairing": job.pairing, "data": ledger.to_dict()}


def predict_text(result: dict[str, Any]) -> str:
    """What `predict` returned, for people."""
    text = "{pairs:,} pairs of {persons:,} people in {frames:,} frames -> {out}".format_map(result)
    damage = damage_text(result["data"])
    return f"{text}\n{damage}" if damage else text


def _load_job(run: Path, extraction: ExtractionConfig, options: PredictOptions) -> _Job:
    data_path = Path(extraction.data_path)
    checkpoint = load_checkpoint(find_run(run).best_model)
    log_precision(checkpoint)
    config = checkpoint.info.config
    units = plan_units(data_path, Selection(extraction.frame_interval, "all"), options.scenes)
    pairing = choose_pairing(options.pairing, units, data_path)
    planned = _of_pairing(ledger_before_reading(units), pairing)
    check_skip_limit(planned, extraction.max_skipped)
    return _Job(
        units=dict(enumerate(units)),
        planned=planned.planned,
        pairing=pairing,
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


def _of_pairing(ledger: Ledger, pairing: str, pairs: int = 0) -> Ledger:
    return ledger if pairing == LABELLED else without_labelled_pairs(ledger, pairs)


def _write(job: _Job, out: Path, options: PredictOptions) -> Ledger:
    """Writes the pictures and `out`."""
    ledger = Ledger.empty()
    folders = [options.draw] if options.draw else []

    def shards(folder: Path | None) -> Iterator[Predictions]:
        nonlocal ledger
        ledger = Ledger.empty()
        for unit, predictions in _predict_shards(job):
            ledger += _of_pairing(shard_ledger(unit, predictions.shard), job.pairing, len(predictions.pair))
            check_skip_limit(ledger, job.extraction.max_skipped, job.planned)
            if folder is not None:
                write_pictures(predictions, Path(job.extraction.data_path), folder)
            yield predictions

    def blocks() -> Iterator[bytes]:
        # The content is made a second time if the disk fails to write it. The pictures are then complete.
        return json_blocks(shards(folders.pop() if folders else None))

    with publish_after_check(out, blocks):
        claim_file(out, overwrite=options.overwrite)  # it may have appeared since the job began
    return ledger


def _predict_shards(job: _Job) -> Iterator[tuple[PlannedUnit, Predictions]]:
    for number, shard in stream_shards(job.units, job.extraction, job.backbone, JobStatistics()):
        unit = job.units[number]
        pair, spatial = candidate_pairs(shard, _people_per_frame(unit, shard), job.pairing, job.extraction.panorama)
        probability = _probabilities(job, shard, pair, torch.from_numpy(spatial.copy()))
        yield unit, Predictions(shard, pair, probability, job.classes, job.extraction.panorama)


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
