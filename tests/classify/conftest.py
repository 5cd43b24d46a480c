"""Fixtures that interrupt the training loop."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from classify.train import loop

Interrupt = Callable[[int], AbstractContextManager[None]]


@pytest.fixture
def interrupt_after_saves() -> Interrupt:
    """Within `interrupt_after_saves(n)` the training loop raises KeyboardInterrupt once n epochs have been saved."""
    return lambda count: _interrupt("_save", count, before=False)


@pytest.fixture
def interrupt_at_step() -> Interrupt:
    """Within `interrupt_at_step(n)` the training loop raises KeyboardInterrupt before its n-th step."""
    return lambda count: _interrupt("learning_rate", count, before=True)


@contextmanager
def _interrupt(name: str, count: int, before: bool) -> Iterator[None]:
    """Interrupts the loop at the count-th call of its function `name`, before or after the call."""
    function, calls = getattr(loop, name), 0

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if before and calls == count:
            raise KeyboardInterrupt
        result = function(*arguments)
        if calls == count:
            raise KeyboardInterrupt
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, name, counted)
        yield
