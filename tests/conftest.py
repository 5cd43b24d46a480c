"""What all tests share: one thread for torch, and hypothesis without deadlines on a busy machine."""

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
    """torchvision names a successor of its image decoders that needs a package more; its warning is known."""
    config.addinivalue_line("filterwarnings", "ignore:The image decoding and encoding capabilities:DeprecationWarning")
