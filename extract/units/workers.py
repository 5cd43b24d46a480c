"""The worker threads of an extraction.

On the CPU each worker uses one core: it decodes and crops frames and forwards whole batches by itself. Workers never
wait for each other, so all cores stay busy even on a shared machine. (Splitting each forward pass over all cores
instead was measured at 0.7 to 1.1 times this speed on an idle machine, and at half of it or less on a busy one.)

On CUDA two workers feed the device, each on its own stream, so that one copies while the other computes. Additional
workers read frames ahead of them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

CUDA_STREAMS = 2


@dataclass(frozen=True)
class Workers:
    """The thread pools that prepare frames and forward batches."""

    readers: ThreadPoolExecutor | None  # None: the main thread prepares each frame when it is needed
    forwarders: ThreadPoolExecutor
    parallel_batches: int  # batches that are forwarded at the same time
    frames_ahead: int  # limit on prepared frames that are not yet used
    device: torch.device


@contextmanager
def open_workers(device: torch.device, num_workers: int) -> Iterator[Workers]:
    """Starts the workers of a job on `device`.

    Up to 2 * num_workers + 2 frames are prepared ahead, on CUDA by `num_workers` threads; 0 prepares none ahead.
    """
    threads = torch.get_num_threads()
    if device.type == "cpu":
        parallel_batches, forwarders = threads, single_threaded_pool(threads)
        readers = forwarders
    else:
        parallel_batches = CUDA_STREAMS
        forwarders = ThreadPoolExecutor(CUDA_STREAMS, initializer=_use_new_stream, initargs=(device,))
        readers = single_threaded_pool(max(1, num_workers))
    try:
        yield Workers(readers if num_workers else None, forwarders, parallel_batches, 2 * num_workers + 2, device)
    finally:
        forwarders.shutdown(cancel_futures=True)
        readers.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # a worker's setting would be the default of threads that start later


def single_threaded_pool(count: int) -> ThreadPoolExecutor:
    """Returns a pool of `count` threads in each of which PyTorch uses one core."""
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))


def _use_new_stream(device: torch.device) -> None:
    torch.cuda.set_stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]


In = TypeVar("In")
Out = TypeVar("Out")


def read_ahead(work: Callable[[In], Out], items: Iterable[In], pool: Executor | None, depth: int) -> Iterator[Out]:
    """Yields `map(work, items)` in order, computed ahead by the threads of `pool`.

    At most `depth` results are in memory that were not yet yielded. Without a pool the calling thread does the work.
    An exception in `work` is raised when its item is due.
    """
    if pool is None:
        yield from map(work, items)
        return
    pending: deque[Future[Out]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
