"""The number of frames and batches in memory does not grow with the length of the job."""

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
NEW_BATCH = extract.units.collect.FeatureCollector._new_batch


class LiveObjects:
    """Counts the objects that are alive, and the largest count so far."""

    def __init__(self) -> None:
        self.alive = self.peak = 0
        self._lock = Lock()

    def add(self, item: Any) -> None:
        with self._lock:
            self.alive += 1
            self.peak = max(self.peak, self.alive)
        weakref.finalize(item, self._remove)

    def _remove(self) -> None:
        with self._lock:
            self.alive -= 1


@pytest.mark.parametrize("slow", ["forward", "reading"])
def test_frames_and_batches_in_memory_do_not_grow_with_the_job(
    slow: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_backbone("resnet18", "random")
    peaks = []
    for frames in (20, 60):
        crops, batches = LiveObjects(), LiveObjects()

        def prepare(*arguments: Any, crops: LiveObjects = crops, **settings: Any) -> PreparedFrame:
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

        def counting_new_batch(self: Any, batches: LiveObjects = batches) -> torch.Tensor:
            tensor: torch.Tensor = NEW_BATCH(self)
            batches.add(tensor)
            return tensor

        monkeypatch.setattr(extract.units.stream, "prepare_frame", prepare)
        monkeypatch.setattr(extract.units.stream, "frozen_forward", forward)
        monkeypatch.setattr(extract.units.collect.FeatureCollector, "_new_batch", counting_new_batch)
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
        assert crops.alive == batches.alive == 0
        peaks.append((crops.peak, batches.peak))
        monkeypatch.undo()
    threads = torch.get_num_threads()
    for frames_in_memory, batches_in_memory in peaks:
        assert 1 < frames_in_memory <= 2 * WORKERS + 2 + 2  # prepared ahead, and the one in use
        assert 1 < batches_in_memory <= 2 * threads + 1 + threads + 1  # pending, running, and the one being filled
