"""The threads of an extraction.

On CPU every thread is a lane of its own that decodes, crops and forwards whole batches with one core: nothing waits at
a barrier, so the cores stay busy even where other jobs share them. (One forward pass split over all cores was measured
0.7 to 1.1 times as fast on an idle machine, and half as fast and less on a busy one.) On CUDA two threads feed the
device, each on a stream of its own, so that one's copies pass while the other's batch is computed; the others read
ahead of them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

CUDA_LANES = 2


@dataclass(frozen=True)
class Lanes:
    """Where frames are prepared and batches forwarded."""

    readers: ThreadPoolExecutor | None  # None: the consumer reads
    forwarders: ThreadPoolExecutor
    width: int  # batches that are forwarded at the same time
    ahead: int  # frames that are prepared before they are asked for
    device: torch.device


@contextmanager
def open_lanes(device: torch.device, num_workers: int) -> Iterator[Lanes]:
    """The lanes of one job on `device`; `num_workers` is the number of frames in work at once, 0 for none ahead."""
    threads = torch.get_num_threads()
    if device.type == "cpu":
        width, forwarders = threads, single_threaded(threads)
        readers = forwarders
    else:
        width, forwarders = CUDA_LANES, ThreadPoolExecutor(CUDA_LANES, initializer=_own_stream, initargs=(device,))
        readers = single_threaded(max(1, num_workers))
    try:
        yield Lanes(readers if num_workers else None, forwarders, width, 2 * num_workers + 2, device)
    finally:
        forwarders.shutdown(cancel_futures=True)
        readers.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # the lanes' own setting is the default of threads that start later


def single_threaded(count: int) -> ThreadPoolExecutor:
    """A pool whose threads compute with one core each."""
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))


def _own_stream(device: torch.device) -> None:
    torch.cuda.set_stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]


In = TypeVar("In")
Out = TypeVar("Out")


def read_ahead(work: Callable[[In], Out], items: Iterable[In], pool: Executor | None, depth: int) -> Iterator[Out]:
    """`map(work, items)` in order, by the threads of `pool`; at most `depth` results exist that were not taken yet.

    Without a pool the consumer's own thread works. An exception of `work` is raised at its item's turn.
    """
    if pool is None:
        yield from map(work, items)
        return
    waiting: deque[Future[Out]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
