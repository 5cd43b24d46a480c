"""What the pairs of new frames do, as JRDB-format JSON and as pictures."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from classify.data.batches import PairBatch
from classify.inference.finished_run import run_backbone
from classify.model.checkpoint import BEST, build_model, load_checkpoint
from classify.report.overlay import draw_scene
from configs.classes import PairClass
from configs.extraction_config import ExtractionConfig
from extract.annotations.spatial import spatial_features
from extract.device import pick_device
from extract.units.plan import PlannedUnit, plan_units
from extract.units.statistics import JobStatistics
from extract.units.stream import stream_shards
from store.files import publish
from store.format.manifest import Selection
from store.format.shard import Shard
from store.tables import Floats, Ints

_PAIRS = 4096  # forwarded at a time


@dataclass(frozen=True)
class Predictions:
    """The answers for the pairs of a run of frames of one scene."""

    shard: Shard
    pair: Ints  # (M, 2) person rows of the shard
    probability: Tensor  # (M, C)
    classes: tuple[PairClass, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The classes' names, in order."""
        return tuple(pair_class.name for pair_class in self.classes)


@dataclass(frozen=True)
class PredictOptions:
    """Which frames and pairs are asked about, and with what."""

    pairing: str = "labelled"  # see classify.inference.predict
    frame_interval: int = 1
    scenes: tuple[str, ...] = ()  # (): all
    draw: Path | None = None  # folder for overlays
    device: str = "auto"
    weights: str = ""  # "": those that the run names


def predict(run: Path, data_path: Path, out: Path, options: PredictOptions) -> dict[str, int]:
    """Answers for the pairs of every frame; writes `out`, and overlays where asked for; returns counts.

    `out` holds {"scenes": {scene: {"labels": ...}}}, each scene in JRDB format with `probabilities` beside the label
    of each pair; a pair stands with its first person.

    Raises:
        CheckpointError, WeightsError, MismatchError, DataError, DeviceError, StorageError.
    """
    scenes: dict[str, dict[str, Any]] = {}
    counts = {"frames": 0, "persons": 0, "pairs": 0}
    for answers in _answers(run, data_path, options):
        shard = answers.shard
        scenes.setdefault(shard.scene, {"labels": {}})["labels"].update(_to_jrdb(answers))
        counts["frames"] += len(shard.frame_name)
        counts["persons"] += len(shard.box)
        counts["pairs"] += len(answers.pair)
        if options.draw is not None:
            draw_scene(shard, answers.pair, answers.probability, answers.names, data_path, options.draw)
    out.parent.mkdir(parents=True, exist_ok=True)
    publish(out, (json.dumps({"scenes": scenes}, ensure_ascii=False) + "\n").encode())
    return counts


def _answers(run: Path, data_path: Path, options: PredictOptions) -> Iterator[Predictions]:
    checkpoint = load_checkpoint(run / BEST)
    config = checkpoint.info.config
    extraction = ExtractionConfig(
        data_path=str(data_path),
        backbone=config.backbone_name,
        crop_size=config.crop_size,
        dtype="float32",
        device=options.device,
    )
    units = dict(enumerate(plan_units(data_path, Selection(options.frame_interval, "all"), options.scenes)))
    loaded = run_backbone(run, checkpoint, options.weights)
    device = pick_device(options.device)
    head = build_model(checkpoint, nn.Identity()).to(device)
    for number, shard in stream_shards(units, extraction, loaded, JobStatistics()):
        pair, spatial = candidate_pairs(shard, _people(units[number], shard), options.pairing)
        probability = _probabilities(head, shard, pair, torch.from_numpy(spatial.copy()), device)
        yield Predictions(shard, pair, probability, config.classes)


def _people(unit: PlannedUnit, shard: Shard) -> Ints:
    """(F,) how many people the stored frames of a unit have."""
    count = dict(zip(unit.tables.frame_name.tolist(), unit.people_per_frame.tolist(), strict=True))
    return np.array([count[name] for name in shard.frame_name.tolist()], np.int64)


@torch.no_grad()
def _probabilities(head: nn.Module, shard: Shard, pair: Ints, spatial: Tensor, device: torch.device) -> Tensor:
    visual = torch.tensor(shard.visual, device=device)
    rows = torch.from_numpy(pair.copy())
    parts = []
    for start in range(0, max(len(rows), 1), _PAIRS):
        here = rows[start : start + _PAIRS]
        persons = visual[here.T.reshape(-1)]  # (2B, D), the first of each pair, then the second
        a = torch.arange(len(here), device=device)
        batch = PairBatch(persons, a, a + len(here), spatial[start : start + _PAIRS].to(device), a)
        parts.append(head(batch).softmax(1).cpu())
    return torch.cat(parts)


def _to_jrdb(answers: Predictions) -> dict[str, list[dict[str, Any]]]:
    """Frame name -> people, each with the pairs of which it is the first."""
    shard = answers.shard
    mentions: dict[int, list[dict[str, Any]]] = {}
    for (a, b), probability in zip(answers.pair.tolist(), answers.probability.tolist(), strict=True):
        best = answers.classes[probability.index(max(probability))]  # annotated as the first of its labels
        mentions.setdefault(a, []).append(
            {
                "pair": f"pedestrian:{shard.person_id[b]}",
                "box_pair": _plain(shard.box[b].tolist()),
                "inter_labels": {best.labels[0]: 1},
                "probabilities": {name: round(p, 6) for name, p in zip(answers.names, probability, strict=True)},
            }
        )
    return {
        str(name): [
            {
                "label_id": f"pedestrian:{shard.person_id[row]}",
                "box": _plain(shard.box[row].tolist()),
                "H-interaction": mentions.get(row, []),
            }
            for row in range(shard.frame_offset[frame], shard.frame_offset[frame + 1])
        ]
        for frame, name in enumerate(shard.frame_name)
    }


def _plain(box: list[float]) -> list[float]:
    """Whole numbers without a point, as JRDB writes them."""
    return [int(value) if value == int(value) else value for value in box]


PAIRINGS = ("labelled", "near", "all")
NEAR = 1.0  # largest center_distance: the people's distance in the size of their boxes


def candidate_pairs(shard: Shard, people: Ints, pairing: str) -> tuple[Ints, Floats]:
    """(M, 2) person rows and (M, 8) spatial features of the pairs of a shard: annotated, near, or all of a frame.

    Args:
        people: (F,) how many people each frame has.
    """
    if pairing == "labelled":
        return shard.pair, shard.spatial
    spans = zip(shard.frame_offset, shard.frame_offset[1:], strict=False)
    by_frame = [np.stack(np.triu_indices(stop - start, 1), axis=1) + start for start, stop in spans]
    pair = np.concatenate([np.empty((0, 2), np.int64), *by_frame])
    frame = np.repeat(np.arange(len(by_frame)), [len(pairs) for pairs in by_frame])
    a, b = pair.T
    spatial = spatial_features(shard.box[a], shard.box[b], shard.frame_size[frame], people[frame])
    near = spatial[:, 5] <= NEAR if pairing == "near" else np.ones(len(pair), bool)
    return pair[near], spatial[near]
