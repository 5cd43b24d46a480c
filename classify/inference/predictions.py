"""Predictions as JRDB-format JSON, made piece by piece, so that memory does not grow with the number of pairs."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from configs.classes import PairClass
from configs.panorama import AUTO
from store.format.shard import Shard
from store.tables import Ints

_BLOCK = 2**20  # characters in a piece of JSON, at least


@dataclass(frozen=True)
class Predictions:
    """The predictions for the M pairs of a shard, which is a run of frames of one scene."""

    shard: Shard
    pair: Ints  # (M, 2) person rows of the shard
    probability: Tensor  # (M, C)
    classes: tuple[PairClass, ...]
    panorama: str = AUTO  # see `configs.panorama.edges_touch`

    @property
    def class_names(self) -> tuple[str, ...]:
        """(C,) names."""
        return tuple(pair_class.name for pair_class in self.classes)


def json_blocks(shards: Iterable[Predictions]) -> Iterator[bytes]:
    """The file of `stage2 predict` in blocks: {"scenes": {scene: {"labels": ...}}}, each scene in JRDB format.

    The bytes are those of `json.dumps` on the whole content. The shards of a scene follow one another.
    """
    texts: list[str] = []
    length = 0
    for text in _json_texts(shards):
        texts.append(text)
        length += len(text)
        if length >= _BLOCK:
            yield "".join(texts).encode()
            texts, length = [], 0
    yield "".join(texts).encode()


def _json_texts(shards: Iterable[Predictions]) -> Iterator[str]:
    scene: str | None = None
    yield '{"scenes": {'
    for predictions in shards:
        shard = predictions.shard
        first_frame = shard.scene != scene
        if first_frame:
            yield ("}}, " if scene is not None else "") + f'{_dumps(shard.scene)}: {{"labels": {{'
        scene = shard.scene
        people = _people(predictions)
        for name, count in zip(shard.frame_name.tolist(), np.diff(shard.frame_offset).tolist(), strict=True):
            yield ("" if first_frame else ", ") + f"{_dumps(name)}: ["
            first_frame = False
            for index in range(count):
                yield (", " if index else "") + _dumps(next(people))
            yield "]"
    yield ("}}" if scene is not None else "") + "}}\n"


def _people(predictions: Predictions) -> Iterator[dict[str, Any]]:
    """The persons of a shard in order, each with the pairs of which the person is the first."""
    shard, names = predictions.shard, predictions.class_names
    by_first = np.argsort(predictions.pair[:, 0], kind="stable")
    stops = np.searchsorted(predictions.pair[by_first, 0], np.arange(len(shard.box)), side="right")
    for row, rows in enumerate(np.split(by_first, stops)[:-1]):
        pairs = []
        for b, probability in zip(
            predictions.pair[rows, 1].tolist(), predictions.probability[rows].tolist(), strict=True
        ):
            best = predictions.classes[probability.index(max(probability))]  # written as the first of its labels
            pairs.append(
                {
                    "pair": f"pedestrian:{shard.person_id[b]}",
                    "box_pair": _to_numbers(shard.box[b].tolist()),
                    "inter_labels": {best.labels[0]: 1},
                    "probabilities": {name: round(p, 6) for name, p in zip(names, probability, strict=True)},
                }
            )
        yield {
            "label_id": f"pedestrian:{shard.person_id[row]}",
            "box": _to_numbers(shard.box[row].tolist()),
            "H-interaction": pairs,
        }


def _to_numbers(box: list[float]) -> list[float]:
    """Whole numbers as int, as in JRDB."""
    return [int(value) if value == int(value) else value for value in box]


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
