"""Settings and fixtures of all tests.

torch computes with one thread, and hypothesis has no deadlines: the suite shares its cores with other work.
Session fixtures are read-only. A test that changes the data works on a copy (`tests.jobs.copy_of`).
"""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from extract.backbones.weights import LoadedBackbone, load_backbone
from tests.jrdb_folder import write_folder

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


@pytest.fixture(scope="session")
def random_resnet18() -> LoadedBackbone:
    """A frozen ResNet18 with seeded random weights."""
    return load_backbone("resnet18", "random")


@pytest.fixture(scope="session")
def two_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of the scenes "cafe" and "hall", each with 4 frames of 5 people."""
    return write_folder(tmp_path_factory.mktemp("two_scenes"), ("cafe", "hall"), frames=4, people=5)
