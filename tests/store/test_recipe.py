"""Recipes are compared field by field, as objects or as the dicts in checkpoints."""

from dataclasses import replace

import pytest

from configs.errors import MismatchError
from store.format.recipe import check_recipe, recipe_differences
from tests.stores import RECIPE


def test_every_differing_field_is_named() -> None:
    other = replace(RECIPE, crop_size=64, dtype="float32")
    assert recipe_differences(RECIPE, RECIPE) == []
    assert recipe_differences(RECIPE, other) == ["crop_size 32, not 64", "dtype float16, not float32"]
    with pytest.raises(MismatchError, match=r"a\.store has a different recipe: crop_size 32, not 64; .*; use another"):
        check_recipe("a.store", RECIPE, other, "use another")


def test_a_heads_identity_ignores_storage_and_precision() -> None:
    stored = replace(RECIPE, dtype="float32", precision="bfloat16", views=2)
    assert recipe_differences(stored.identity(), RECIPE.identity()) == []
    assert recipe_differences({"backbone": "hog"}, {"layer": "x"}) == [
        "backbone hog, not missing",
        "layer missing, not x",
    ]
