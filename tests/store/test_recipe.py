"""Recipes are compared field by field, as objects or as the dicts in checkpoints."""

import hashlib
from dataclasses import replace

import pytest

from configs.errors import IntegrityError, MismatchError
from store.format.recipe import Recipe, check_recipe, digest, recipe_differences
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


def test_a_heads_identity_has_exactly_the_fields_that_change_features() -> None:
    assert set(RECIPE.identity()) == {
        *("backbone", "layer", "weights_sha256", "visual_dim", "crop_size"),
        *("padding", "box_rule", "interpolation", "normalisation"),
    } | set(RECIPE.identity()) & {"panorama"}
    assert RECIPE.identity()["crop_size"] == RECIPE.crop_size


@pytest.mark.parametrize(("field", "value"), [("dtype", ""), ("dtype", "O"), ("views", 10**9), ("visual_dim", -1)])
def test_a_recipe_read_from_a_file_has_possible_values(field: str, value: object) -> None:
    assert Recipe.from_dict(RECIPE.to_dict()) == RECIPE
    with pytest.raises(IntegrityError, match=f"field {field} is"):
        Recipe.from_dict(RECIPE.to_dict() | {field: value})


def test_a_digest_is_the_sha256_of_canonical_json() -> None:
    text = '{"a":[1,2.5,null],"b":"caf\\u00e9"}'  # sorted, without spaces, ASCII
    assert digest({"b": "caf\u00e9", "a": [1, 2.5, None]}) == hashlib.sha256(text.encode()).hexdigest()
    with pytest.raises(ValueError, match="JSON"):
        digest(float("nan"))
