"""Whether the left and right edge of an image touch: they do in a 360-degree panorama, not in an ordinary photo.

The setting is part of a store's recipe, and is applied to each image by its own size, so that a folder may mix both.
"""

from typing import Any, TypeVar

AUTO, YES, NO = "auto", "yes", "no"
PANORAMA = (AUTO, YES, NO)
MIN_ASPECT = 4  # a panorama of JRDB is 7.8 times as wide as high; cameras make photos of at most 2.4

Number = TypeVar("Number", int, Any)


def edges_touch(panorama: str, width: Number, height: Number) -> Any:
    """Whether the left and right edges of images of this size touch.

    Args:
        panorama: "yes", "no", or "auto": if the image is at least MIN_ASPECT times as wide as high.
        width, height: pixels; integers, or numpy arrays or tensors of any equal shape.

    Returns:
        A boolean, or an array or tensor of booleans of the same shape.
    """
    if panorama == AUTO:
        return width >= MIN_ASPECT * height
    return (width == width) if panorama == YES else (width != width)  # noqa: PLR0124 - of the shape of `width`


def describe(panorama: str, touching: int, images: int) -> str:
    """A log line about how many of `images` images were treated as panoramas."""
    rule = f"auto: at least {MIN_ASPECT} times as wide as high" if panorama == AUTO else panorama
    return f"Panorama ({rule}): the left and right edges of {touching:,} of {images:,} images touch"
