"""The file of predictions is written in pieces, with the bytes of `json.dumps` on the whole content."""

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from classify.inference.predictions import Predictions, json_blocks
from configs.resnet_stage2_config import ResNetStage2Config
from store.files import publish_after_check
from store.format.shard import Shard
from store.tables import Tables
from tests.factories import make_tables

CLASSES = ResNetStage2Config().classes
PEOPLE = 20


def predictions(scene: str, first_frame: int = 0) -> Predictions:
    """All pairs of two frames of PEOPLE people each."""
    tables: Tables = make_tables((scene,), frames=2, people=PEOPLE, pairs=PEOPLE * (PEOPLE - 1) // 2)
    names = np.array([f"{first_frame + frame:06d}.jpg" for frame in range(2)])
    visual = np.zeros((len(tables.box), 1), np.float32)
    digests = np.array(["0" * 64] * 2)
    shard = Shard.from_tables(
        replace(tables, frame_name=names),
        scene=scene,
        visual=visual,
        visual_flipped=None,
        frame_sha256=digests,
        skipped=(),
    )
    order = np.random.default_rng(0).permutation(len(shard.pair))
    return Predictions(shard, shard.pair[order], torch.rand(len(order), len(CLASSES)), CLASSES)


def test_p11_the_bytes_are_those_of_the_whole_content() -> None:
    shards = [predictions("café"), predictions("café", 2), predictions("hall")]
    text = b"".join(json_blocks(shards)).decode()
    content: dict[str, Any] = json.loads(text)
    assert json.dumps(content, ensure_ascii=False) + "\n" == text
    assert [(scene, list(value["labels"])) for scene, value in content["scenes"].items()] == [
        ("café", ["000000.jpg", "000001.jpg", "000002.jpg", "000003.jpg"]),
        ("hall", ["000000.jpg", "000001.jpg"]),
    ]
    first = shards[0]
    written = {
        (person["label_id"], pair["pair"]): tuple(pair["probabilities"].values())
        for person in content["scenes"]["café"]["labels"]["000000.jpg"]
        for pair in person["H-interaction"]
    }
    rows = [row for row, (a, _) in enumerate(first.pair.tolist()) if a < PEOPLE]
    expected = {
        (f"pedestrian:{a}", f"pedestrian:{b}"): tuple(round(p, 6) for p in first.probability[row].tolist())
        for row, (a, b) in ((row, first.pair[row].tolist()) for row in rows)
    }
    assert written == expected


def test_p11_no_scenes_are_an_empty_object() -> None:
    assert b"".join(json_blocks([])) == b'{"scenes": {}}\n'


def test_p11_memory_does_not_grow_with_the_number_of_pairs(tmp_path: Path) -> None:
    one = predictions("hall")

    def peak(shards: int) -> int:
        def compute() -> Iterator[Predictions]:
            return (replace(one, shard=replace(one.shard, scene=f"scene {number}")) for number in range(shards))

        tracemalloc.start()
        with publish_after_check(tmp_path / "out.json", lambda: json_blocks(compute())):
            pass
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (tmp_path / "out.json").stat().st_size > 100 * shards * len(one.pair)
        return size

    peak(1)
    assert peak(100) < 2 * peak(20)
