"""What a store says about itself: each dataset has a description, and each of its columns a name and a unit."""

import json
import re
from pathlib import Path

import pytest

from store.format.descriptions import DESCRIPTIONS, dataset_attributes
from store.format.recipe import FORMAT
from store.tables import COLUMNS, FROM_RECIPE

CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"


@pytest.mark.parametrize("name", sorted(DESCRIPTIONS))
def test_each_dataset_is_described_in_words(name: str) -> None:
    text = dataset_attributes(name)["description"]
    assert isinstance(text, str) and re.fullmatch(r"[a-z].+[^.]", text)


@pytest.mark.parametrize("name", [name for name, column in COLUMNS.items() if column.width not in (0, FROM_RECIPE)])
def test_each_column_has_a_name_and_a_unit(name: str) -> None:
    attributes = dataset_attributes(name)
    columns, units = json.loads(attributes["columns"]), json.loads(attributes["units"])
    assert len(columns) == len(set(columns)) == len(units) == COLUMNS[name].width
    assert all(isinstance(value, str) and value for value in columns + units)


def test_columns_and_units_are_not_exchanged() -> None:
    assert json.loads(dataset_attributes("box")["columns"]) == ["x", "y", "width", "height"]
    assert set(json.loads(dataset_attributes("box")["units"])) == {"pixel"}
    assert json.loads(dataset_attributes("pair")["columns"]) == ["first", "second"]
    assert "ratio" in json.loads(dataset_attributes("spatial")["units"])


def test_the_format_is_the_one_that_the_changelog_describes() -> None:
    described = re.search(r"^Store format (\d+):", CHANGELOG.read_text(), re.MULTILINE)
    assert described is not None and int(described[1]) == FORMAT
