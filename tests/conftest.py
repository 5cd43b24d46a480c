"""Settings and fixtures of all tests.

torch computes with one thread, and hypothesis has no deadlines: the suite may share its cores with other work.
"""

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
settings.register_profile(
    "stage2",
    deadline=None,
    max_examples=int(os.environ.get("STAGE2_EXAMPLES", "50")),
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("stage2")


def pytest_configure(config: pytest.Config) -> None:
    """Ignores torchvision's warning that its image decoders move to another package."""
    config.addinivalue_line("filterwarnings", "ignore:The image decoding and encoding capabilities:DeprecationWarning")


@pytest.fixture
def quick_baselines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains the spatial baseline for one epoch, for tests that do not check its accuracy."""
    monkeypatch.setattr("classify.evaluate.baselines.ROUNDS", 1)


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out a run's pictures, for tests that do not look at them."""
    monkeypatch.setattr("classify.train.run.plot_run", lambda *_: None)
