"""The source of end-to-end batches: crops of the persons of a batch, read ahead of the model."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classify.batches import PairBatch, draw_order, sampling_weights, sorted_pairs
from classify.distributed import share
from classify.selection import Split
from configs.resnet_stage2_config import ResNetStage2Config
from extract.crops import crop_people
from extract.frames import read_frame
from extract.lanes import single_threaded
from extract.read_ahead import read_ahead
from store.tables import Tables


class CropSource:
    """Batches of crops: each person of a batch stands once, each frame of a batch is decoded once.

    A pool of `num_workers` threads (decoding and cropping release the GIL) reads at most that many batches ahead;
    with 0 workers the batch is read when it is asked for. The order does not depend on the workers.
    """

    def __init__(
        self,
        tables: Tables,
        image_paths: Sequence[Path],  # (F,)
        split: Split,
        config: ResNetStage2Config,
        *,
        device: torch.device,
        balanced: bool = False,
    ):
        self._tables = tables
        self._paths = image_paths
        self._pairs = sorted_pairs(tables, split)  # (m, 2)
        self._spatial = torch.from_numpy(tables.spatial[split.pairs].astype(np.float32))  # (m, 8)
        self._label = torch.from_numpy(split.labels.copy())  # (m,)
        self._weights = sampling_weights(split) if balanced else None
        self._batch_size = config.batch_size
        self._crop_size = config.crop_size
        self._device = device
        self._workers = config.num_workers
        self.samples = len(split.labels)
        self.batches = -(-self.samples // config.batch_size)

    def epoch(self, generator: torch.Generator | None = None) -> Iterator[PairBatch]:
        """One pass; see `classify.batches.Source`.

        Raises:
            FrameError: an image cannot be read.
        """
        order = torch.arange(self.samples)
        if generator is not None:
            order = draw_order(self.samples, self._weights, generator)
        parts = torch.split(order, self._batch_size)
        with single_threaded(max(1, self._workers)) as pool:
            readers = pool if self._workers else None
            for batch in read_ahead(self._read, parts, readers, self._workers + 1):
                yield _on_device(batch, self._device)

    def _read(self, part: Tensor) -> PairBatch:
        """The batch of the samples `part` (B,), on the CPU."""
        persons, places = np.unique(self._pairs[part.numpy()], return_inverse=True)
        rows = torch.from_numpy(places.reshape(-1, 2).T.copy())  # (2, B)
        return PairBatch(self._crops(share(persons)), rows[0], rows[1], self._spatial[part], self._label[part])

    def _crops(self, persons: NDArray[np.int64]) -> Tensor:
        """(P, 3, S, S) uint8 crops of person rows (P,), sorted, so that those of a frame stand together."""
        frames = np.searchsorted(self._tables.frame_offset, persons, side="right") - 1
        crops = [
            crop_people(read_frame(self._paths[frame]), self._tables.box[persons[frames == frame]], self._crop_size)
            for frame in np.unique(frames)
        ]
        nobody = torch.empty((0, 3, self._crop_size, self._crop_size), dtype=torch.uint8)  # a rank without a share
        return torch.cat([nobody, *crops])


def _on_device(batch: PairBatch, device: torch.device) -> PairBatch:
    return PairBatch(*(part.to(device) for part in (batch.persons, batch.a, batch.b, batch.spatial, batch.label)))
