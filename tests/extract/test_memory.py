"""An extraction holds a bounded number of frames and batches, however long it is."""

import gc
import time
import weakref
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
import torch

import extract.units.collect
import extract.units.stream
from configs.extraction_config import ExtractionConfig
from extract.backbones.weights import load_backbone
from extract.job import extract_with
from extract.units.plan import UnitSize
from extract.units.prepare import PreparedFrame, prepare_frame
from tests.jrdb_folder import write_folder

WORKERS, BATCH = 2, 4
EMPTY = extract.units.collect.FeatureCollector._new_batch


class Live:
    """How many objects of a kind are alive, and how many were at most."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = Lock()

    def add(self, thing: Any) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        weakref.finalize(thing, self._gone)

    def _gone(self) -> None:
        with self._lock:
            self.now -= 1


@pytest.mark.parametrize("slow", ["forward", "reading"])
def test_frames_and_batches_in_memory_do_not_grow_with_the_job(
    slow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_backbone("resnet18", "random")
    most = []
    for frames in (20, 60):
        crops, batches = Live(), Live()

        def prepare(*arguments: Any, crops: Live = crops, **settings: Any) -> PreparedFrame:
            frame = prepare_frame(*arguments, **settings)
            crops.add(frame.crops)
            if slow == "reading":
                time.sleep(0.002)
            return frame

        def forward(*_: Any) -> Any:
            def run(batch: torch.Tensor) -> torch.Tensor:
                if slow == "forward":
                    time.sleep(0.01)
                return batch.float().mean((2, 3)).repeat(1, 171)[:, :512]

            return run

        def counted(self: Any, batches: Live = batches) -> torch.Tensor:
            tensor: torch.Tensor = EMPTY(self)
            batches.add(tensor)
            return tensor

        monkeypatch.setattr(extract.units.stream, "prepare_frame", prepare)
        monkeypatch.setattr(extract.units.stream, "frozen_forward", forward)
        monkeypatch.setattr(extract.units.collect.FeatureCollector, "_new_batch", counted)
        data = write_folder(tmp_path / f"data-{frames}", ("cafe",), frames=frames, people=4)
        config = ExtractionConfig(
            data_path=str(data),
            store=str(tmp_path / f"{frames}.store"),
            weights="random",
            crop_size=32,
            batch_size=BATCH,
            num_workers=WORKERS,
            device="cpu",
        )
        extract_with(config, loaded, unit_size=UnitSize(crops=40))
        gc.collect()
        assert crops.now == batches.now == 0
        most.append((crops.most, batches.most))
        monkeypatch.undo()
    lanes = torch.get_num_threads()
    for frames_held, batches_held in most:
        assert 1 < frames_held <= 2 * WORKERS + 2 + 2  # read ahead, and the one that is handed on
        assert 1 < batches_held <= 2 * lanes + 1 + lanes + 1  # waiting, in work, and the one that fills
