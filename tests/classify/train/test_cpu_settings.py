"""How many threads the parts of a run use."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from classify.data import cached as cached_batches
from classify.inference.finished_run import evaluate_features
from classify.model.checkpoint import load_checkpoint
from classify.train.cpu_settings import SMALL_BATCH
from tests.factories import IDENTITY, make_features, make_tables, small_config, train_head


@pytest.fixture
def two_threads() -> Iterator[None]:
    """The machine has two cores for PyTorch; tests otherwise run with one thread."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("two_threads", "quick_baselines", "no_plots")
@pytest.mark.parametrize(("batch_size", "expected"), [(8, {1}), (SMALL_BATCH + 1, {1, 2})])
def test_small_batches_are_prepared_trained_and_tested_on_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int, expected: set[int]
) -> None:
    """Gathering a batch is too short to be shared: on busy cores a second thread takes ten times as long."""
    threads = set()
    gather = cached_batches.gather_batch

    def record(*args: Any) -> Any:
        threads.add(torch.get_num_threads())
        return gather(*args)

    monkeypatch.setattr("classify.data.cached.gather_batch", record)
    features = make_features(make_tables(frames=40))
    run = train_head(features, small_config(tmp_path / "run", batch_size=batch_size, epochs=1))
    checkpoint = load_checkpoint(run.folder / "best_model.pth")
    evaluate_features(checkpoint, features, IDENTITY, split="test", device=torch.device("cpu"))
    assert threads == expected
    assert torch.get_num_threads() == 2
