"""The threads of an extraction.

On CPU every thread is a lane of its own that decodes, crops and forwards whole batches with one core: nothing waits at
a barrier, so the cores stay busy even where other jobs share them. (One forward pass split over all cores was measured
1.0 to 1.1 times as fast on an idle machine, and half as fast and less on a busy one.) On CUDA one thread feeds the
device and the others read ahead of it.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Lanes:
    """Where frames are prepared and batches forwarded."""

    readers: ThreadPoolExecutor | None  # None: the consumer reads
    forwarders: ThreadPoolExecutor
    width: int  # batches that are forwarded at the same time
    ahead: int  # frames that are prepared before they are asked for


@contextmanager
def open_lanes(device: torch.device, num_workers: int) -> Iterator[Lanes]:
    """The lanes of one job on `device`; `num_workers` is the number of frames in work at once, 0 for none ahead."""
    threads = torch.get_num_threads()
    cores = threads if device.type == "cpu" else 1
    forwarders = single_threaded(cores)
    readers = forwarders if device.type == "cpu" else single_threaded(max(1, num_workers))
    try:
        yield Lanes(readers if num_workers else None, forwarders, cores, 2 * num_workers + 2)
    finally:
        forwarders.shutdown(cancel_futures=True)
        readers.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # the lanes' own setting is the default of threads that start later


def single_threaded(count: int) -> ThreadPoolExecutor:
    """A pool whose threads compute with one core each."""
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
