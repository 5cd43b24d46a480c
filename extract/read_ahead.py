"""Work done ahead of its consumer by threads, in order, with a bound on what waits."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

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
