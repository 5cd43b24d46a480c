"""Predicts the classes of the pairs in new frames, as JRDB-format JSON and as images."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from classify.data.batches import gather_batch
from classify.inference.finished_run import load_run_backbone
from classify.inference.predictions import Predictions, json_blocks
from classify.model.checkpoint import build_model, load_checkpoint
from classify.report.overlay import draw_scene
from classify.run_folder import RunFolder
from configs.extraction_config import ExtractionConfig
from configs.panorama import AUTO
from extract.annotations.jrdb import IMAGES, LABELS
from extract.annotations.spatial import spatial_features
from extract.device import pick_device
from extract.units.plan import PlannedUnit, plan_units
from extract.units.statistics import JobStatistics
from extract.units.stream import stream_shards
from store.files import publish_after_check, translate_os_errors
from store.format.manifest import Selection
from store.format.shard import Shard
from store.outputs import claim_file, claim_folder
from store.tables import Floats, Ints

NEAR = 1.0  # largest center_distance of near pairs, in units of the size of their boxes
_BATCH = 4096  # pairs


@dataclass(frozen=True)
class PredictOptions:
    """The frames and pairs to predict, and how."""

    pairing: str = "labelled"  # "labelled", "near" or "all"; see `candidate_pairs`
    frame_interval: int = 1
    scenes: tuple[str, ...] = ()  # (): all
    draw: Path | None = None  # folder for overlays
    device: str = "auto"
    panorama: str | None = None  # see `configs.panorama.edges_touch`; None: as in training
    weights: str = ""  # path of the backbone's weights; "": those in the run's configuration
    overwrite: bool = False  # replace an existing output file, and overlays in an existing folder


def predict(run: Path, data_path: Path, out: Path, options: PredictOptions) -> dict[str, int]:
    """Predicts the pairs of every frame; writes `out`, and overlays if requested. Returns counts.

    `out` contains {"scenes": {scene: {"labels": ...}}}, each scene in JRDB format. Each pair is listed with its first
    person and has `probabilities` in addition to its label. It is written while the shards are computed.

    Raises:
        ConfigError: an output may not be written; see `claim_file`.
        CheckpointError, WeightsError, MismatchError, DataError, DeviceError, StorageError.
    """
    counts = {"frames": 0, "persons": 0, "pairs": 0}

    def blocks() -> Iterator[bytes]:
        counts.update(dict.fromkeys(counts, 0))
        return json_blocks(_counted_and_drawn(_predict_shards(run, data_path, options), counts, data_path, options))

    inputs = (data_path / IMAGES, data_path / LABELS, *RunFolder(run).files)
    claim_file(out, overwrite=options.overwrite, inputs=inputs)
    if options.draw is not None:
        claim_folder(options.draw, overwrite=options.overwrite, inputs=inputs)
    with translate_os_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with publish_after_check(out, blocks):
        pass
    return counts


def _counted_and_drawn(
    shards: Iterable[Predictions], counts: dict[str, int], data_path: Path, options: PredictOptions
) -> Iterator[Predictions]:
    """Yields `shards`; adds their sizes to `counts`, and draws their overlays if requested."""
    for predictions in shards:
        shard = predictions.shard
        counts["frames"] += len(shard.frame_name)
        counts["persons"] += len(shard.box)
        counts["pairs"] += len(predictions.pair)
        if options.draw is not None:
            pair, probability, names = predictions.pair, predictions.probability, predictions.class_names
            draw_scene(shard, pair, probability, names, data_path, options.draw, predictions.panorama)
        yield predictions


def _predict_shards(run: Path, data_path: Path, options: PredictOptions) -> Iterator[Predictions]:
    checkpoint = load_checkpoint(RunFolder(run).best_model)
    config = checkpoint.info.config
    extraction = ExtractionConfig(
        data_path=str(data_path),
        backbone=config.backbone_name,
        crop_size=config.crop_size,
        dtype="float32",
        panorama=options.panorama or config.panorama,
        device=options.device,
    )
    units = dict(enumerate(plan_units(data_path, Selection(options.frame_interval, "all"), options.scenes)))
    backbone = load_run_backbone(run, checkpoint, options.weights)
    device = pick_device(options.device)
    model = build_model(checkpoint, nn.Identity()).to(device)
    for number, shard in stream_shards(units, extraction, backbone, JobStatistics()):
        people = _people_per_frame(units[number], shard)
        pair, spatial = candidate_pairs(shard, people, options.pairing, extraction.panorama)
        probability = _probabilities(model, shard, pair, torch.from_numpy(spatial.copy()), device)
        yield Predictions(shard, pair, probability, config.classes, extraction.panorama)


def _people_per_frame(unit: PlannedUnit, shard: Shard) -> Ints:
    """(F,) how many people each frame of `shard` has, those without a usable crop included."""
    people = dict(zip(unit.tables.frame_name.tolist(), unit.people_per_frame.tolist(), strict=True))
    return np.array([people[name] for name in shard.frame_name.tolist()], np.int64)


def candidate_pairs(shard: Shard, people: Ints, pairing: str, panorama: str = AUTO) -> tuple[Ints, Floats]:
    """Person rows (M, 2) and spatial features (M, 8) of the pairs to predict.

    Args:
        people: (F,) how many people each frame has.
        pairing: "labelled": the annotated pairs; "near": center_distance of at most NEAR; "all": all pairs of a frame.
        panorama: see `configs.panorama.edges_touch`.
    """
    if pairing == "labelled":
        return shard.pair, shard.spatial
    spans = zip(shard.frame_offset, shard.frame_offset[1:], strict=False)
    by_frame = [np.stack(np.triu_indices(stop - start, 1), axis=1) + start for start, stop in spans]
    pair = np.concatenate([np.empty((0, 2), np.int64), *by_frame])
    frame = np.repeat(np.arange(len(by_frame)), [len(pairs) for pairs in by_frame])
    a, b = pair.T
    spatial = spatial_features(shard.box[a], shard.box[b], shard.frame_size[frame], people[frame], panorama)
    selected = spatial[:, 5] <= NEAR if pairing == "near" else np.ones(len(pair), bool)
    return pair[selected], spatial[selected]


@torch.no_grad()
def _probabilities(model: nn.Module, shard: Shard, pair: Ints, spatial: Tensor, device: torch.device) -> Tensor:
    """(M, C) float32 on the CPU."""
    features = torch.tensor(shard.visual, device=device)
    rows = torch.from_numpy(pair.T.copy()).to(device)  # (2, M)
    unknown = torch.zeros(len(pair), dtype=torch.int64, device=device)  # labels, which the model does not read
    probabilities = []
    for start in range(0, max(len(pair), 1), _BATCH):
        pairs = slice(start, start + _BATCH)
        batch = gather_batch(features, rows[:, pairs], spatial[pairs].to(device), unknown[pairs])
        probabilities.append(model(batch).softmax(1).cpu())
    return torch.cat(probabilities)
