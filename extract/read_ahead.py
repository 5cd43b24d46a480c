"""Work done ahead of its consumer by threads, in order, with a bound on what waits."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

In = TypeVar("In")
Out = TypeVar("Out")


def read_ahead(work: Callable[[In], Out], items: Iterable[In], workers: int, depth: int) -> Iterator[Out]:
    """`map(work, items)` in order, by `workers` threads; at most `depth` results exist that were not taken yet.

    With 0 workers the consumer's own thread works. An exception of `work` is raised at its item's turn.
    """
    if workers == 0:
        yield from map(work, items)
        return
    waiting: deque[Future[Out]] = deque()
    # a worker's tensor operations must not start threads of their own
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
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
