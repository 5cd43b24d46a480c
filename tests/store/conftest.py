"""Fixtures of the store's tests."""

from pathlib import Path

import pytest

from tests.jobs import store_files
from tests.stores import UNITS, make_plan, write_units


@pytest.fixture(scope="session")
def complete_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """STORE.json and the shards of a store that was written without interruption: relative path -> bytes."""
    path = tmp_path_factory.mktemp("complete") / "a.store"
    assert write_units(path, make_plan()) == UNITS
    return store_files(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A finished store of `make_plan`."""
    write_units(tmp_path / "a.store", make_plan())
    return tmp_path / "a.store"
