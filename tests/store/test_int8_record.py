"""The record of the error of int8 features: its numbers, its round trip, and damaged ones."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.errors import IntegrityError
from store.format.int8_record import KEPT, Int8Record
from store.format.manifest import Manifest, Selection, manifest_text, parse_manifest
from store.format.recipe import INT8, Recipe, recipe_differences
from tests.stores import RECIPE

RANGES = {"stem": [0.0, 3.5], "layer1.0.conv2": [-2.25, 1.5]}
INT8_RECIPE = replace(RECIPE, precision=INT8, activation_ranges=RANGES)


def make_record(count: int = 40, dim: int = 8) -> Int8Record:
    rng = np.random.default_rng(0)
    float32 = rng.random((count, dim), np.float32)
    return Int8Record.measure(float32 + 0.1 * rng.random((count, dim), np.float32), float32)


def test_the_numbers_equal_torchs() -> None:
    rng = np.random.default_rng(1)
    one, two = rng.random((2, 50, 16), np.float32)
    record = Int8Record.measure(one, two)
    a, b = torch.from_numpy(one).double(), torch.from_numpy(two).double()
    cosine, error = torch.cosine_similarity(a, b), (a - b).norm(dim=1) / b.norm(dim=1)
    expected = [cosine.mean(), cosine.min(), error.mean(), error.max()]
    actual = [record.cosine_mean, record.cosine_min, record.error_mean, record.error_max]
    np.testing.assert_allclose(actual, [float(value) for value in expected], atol=5.1e-5)
    assert record.crops == 50
    for rows, kept in zip((one, two), record.samples(), strict=True):
        np.testing.assert_allclose(kept, rows[:KEPT], rtol=1e-3)


def test_a_record_survives_the_manifest_and_json() -> None:
    manifest = Manifest(INT8_RECIPE, Selection(1, "all"), {}, (), "file.pth", int8=make_record())
    assert parse_manifest(manifest_text(manifest), Path("STORE.json"), "x") == manifest
    assert Int8Record.from_dict(json.loads(json.dumps(manifest.int8.to_dict()))) == manifest.int8  # type: ignore[union-attr]


def test_other_stores_have_no_field_of_int8() -> None:
    text = manifest_text(Manifest(RECIPE, Selection(1, "all"), {}, (), "random")).decode()
    assert "int8" not in text and "activation_ranges" not in text


@pytest.mark.parametrize(
    "change",
    [
        {"crops": 0},
        {"crops": 3.0},
        {"cosine_min": 1},
        {"float32": "@@@@"},
        {"float32": ""},
        {"int8": make_record(40, dim=6).int8},
        {"more": 1},
    ],
)
def test_a_damaged_record_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Int8Record.from_dict(make_record().to_dict() | change)


@pytest.mark.parametrize(
    "change",
    [
        {"activation_ranges": {}},
        {"activation_ranges": {"stem": [1.0]}},
        {"activation_ranges": {"stem": [2.0, 1.0]}},
        {"activation_ranges": {"stem": "wide"}},
        {"precision": "float32"},
    ],
)
def test_ranges_that_do_not_fit_the_precision_are_refused(change: dict[str, Any]) -> None:
    assert Recipe.from_dict(json.loads(json.dumps(INT8_RECIPE.to_dict()))) == INT8_RECIPE
    with pytest.raises(IntegrityError, match="activation_ranges"):
        Recipe.from_dict(INT8_RECIPE.to_dict() | change)


def test_a_head_fits_int8_features_and_differing_ranges_are_named_briefly() -> None:
    assert recipe_differences(INT8_RECIPE.identity(), RECIPE.identity()) == []
    other = replace(INT8_RECIPE, activation_ranges=RANGES | {"stem": [0.0, 4.0]})
    (text,) = recipe_differences(INT8_RECIPE, other)
    assert text.startswith("activation_ranges with digest ") and len(text) < 80
