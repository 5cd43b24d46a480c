"""The recipes of this project's stores: everything that determines the numbers in a row."""

from functools import partial

from configs.panorama import AUTO
from extract.backbones.weights import LoadedBackbone, state_sha256
from extract.images.crops import BOX_RULE, INTERPOLATION, PADDING
from store.format.recipe import CROPS, INT8, PIXEL_DTYPE, Recipe

_recipe = partial(Recipe, padding=PADDING, box_rule=BOX_RULE, interpolation=INTERPOLATION)


def feature_recipe(
    loaded: LoadedBackbone, crop_size: int, dtype: str, views: int, precision: str, panorama: str = AUTO
) -> Recipe:
    """Returns the recipe of a store of features: `loaded.backbone` on crops of `crop_size` pixels."""
    return _recipe(
        backbone=loaded.backbone.name,
        layer=loaded.backbone.layer,
        weights_sha256=loaded.sha256,
        visual_dim=loaded.backbone.out_dim,
        crop_size=crop_size,
        normalisation=loaded.backbone.normalisation,
        precision=precision,
        dtype=dtype,
        views=views,
        panorama=panorama,
        activation_ranges=loaded.activation_ranges if precision == INT8 else {},
    )


def crop_recipe(crop_size: int, panorama: str = AUTO) -> Recipe:
    """Returns the recipe of a store of crops: each row is one crop's uint8 pixels in (3, S, S) order."""
    return _recipe(
        backbone=CROPS,
        layer="pixels",
        weights_sha256=state_sha256({}),
        visual_dim=3 * crop_size**2,
        crop_size=crop_size,
        normalisation="none",
        precision="float32",
        dtype=PIXEL_DTYPE,
        views=1,
        panorama=panorama,
    )
