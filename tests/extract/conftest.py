"""Fixtures of the extraction tests; tests that change a dataset copy it first."""

from pathlib import Path

import pytest

from extract.backbones.weights import LoadedBackbone, load_backbone
from tests.jrdb_folder import write_folder


@pytest.fixture(scope="session")
def loaded() -> LoadedBackbone:
    return load_backbone("resnet18", "random")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 2 scenes with 4 frames of 5 people each."""
    return write_folder(tmp_path_factory.mktemp("data"), ("cafe", "hall"), frames=4, people=5)
