"""A small data set of random images for the tests of batches."""

from pathlib import Path

import pytest

from store.tables import Tables
from tests.factories import make_tables, write_images

Images = tuple[Tables, list[Path]]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """Tables of 12 frames with 5 people and 4 pairs each, and the path of each frame's image. Read-only."""
    tables = make_tables(frames=3, people=5, pairs=4)
    return tables, write_images(tables, tmp_path_factory.mktemp("images"))
