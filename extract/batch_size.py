"""How many crops a batch holds: the first batches of a job on the CPU try several sizes, and the fastest stays."""

from itertools import cycle
from statistics import median

import torch

CPU_SIZES = (16, 8, 32)  # the first one stays unless another one is clearly faster
GPU_SIZE = 256
_TRIALS = 4  # batches of each size
_CLEARLY = 0.95  # share of the first size's time


class BatchSize:
    """Gives each batch its size. The trial is the job's own work: nothing is forwarded for measuring alone.

    The features do not depend on it: on the CPU a crop's have the same bits in every batch, and on a GPU, where they
    might not, all batches of a job have one size.
    """

    def __init__(self, asked: int, device: torch.device) -> None:
        """`asked` is a fixed size, or 0 to have it chosen."""
        self._sizes = (asked,) if asked else CPU_SIZES if device.type == "cpu" else (GPU_SIZE,)
        self._turns = cycle(self._sizes)
        self._seconds: dict[int, list[float]] = {size: [] for size in self._sizes}
        self.most = max(self._sizes)
        self.chosen = self._sizes[0] if len(self._sizes) == 1 else 0  # 0: still trying

    def next(self) -> int:
        """The size of the next batch."""
        return self.chosen or next(self._turns)

    def took(self, crops: int, seconds: float) -> None:
        """Notes the processor time that a batch took; one that was not full does not count."""
        if self.chosen or crops not in self._seconds:
            return
        self._seconds[crops].append(seconds / crops)
        if all(len(times) >= _TRIALS for times in self._seconds.values()):
            self.chosen = self._fastest()

    def _fastest(self) -> int:
        times = {size: median(seconds) for size, seconds in self._seconds.items()}
        best, first = min(times, key=lambda size: times[size]), self._sizes[0]
        return best if times[best] < _CLEARLY * times[first] else first
