"""What the datasets of a store contain, written into each file as attributes of the datasets, for people with h5py."""

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Description:
    """One dataset: what a row is, and the names and units of its columns."""

    text: str
    columns: tuple[str, ...] = ()
    units: tuple[str, ...] = ()  # one for each column, or one for all values


_PIXEL_BOX = ("pixel",) * 4
DESCRIPTIONS = {
    "visual": Description("features of the person's crop; in a store of crops its pixels in (3, S, S) order, RGB"),
    "visual_flipped": Description("features of the mirrored crop"),
    "box": Description("the person's box in the image", ("x", "y", "width", "height"), _PIXEL_BOX),
    "person_id": Description("the person's track id, stable within a scene"),
    "frame_name": Description("file name of the image, UTF-8"),
    "frame_index": Description("position of the frame among the annotated frames of its scene"),
    "frame_size": Description("size of the image", ("width", "height"), ("pixel", "pixel")),
    "frame_offset": Description("the persons of frame f are rows frame_offset[f] to frame_offset[f + 1] - 1"),
    "frame_sha256": Description("sha256 of the bytes of the image file"),
    "frame_scene": Description("name of the frame's scene, UTF-8"),
    "pair": Description("rows of the two persons of a pair", ("first", "second"), ("person row", "person row")),
    "spatial": Description(
        "spatial features of the pair; formulas in docs/store.md",
        (
            "horizontal_gap",
            "height_ratio",
            "ground_distance",
            "vertical_overlap",
            "area_ratio",
            "center_distance",
            "vertical_gap",
            "scene_density",
        ),
        (
            "share of the image's width",
            "ratio",
            "share of the image's width",
            "share of the smaller height",
            "ratio",
            "square root of the summed areas",
            "share of the image's height",
            "persons in the frame / 10, at most 1",
        ),
    ),
    "label": Description("row of label_sets with the pair's labels"),
    "label_sets": Description("the different sets of annotated labels, each as a JSON list"),
    "skipped": Description("planned items that could not be stored, each as a JSON object with its reason"),
}


def dataset_attributes(name: str) -> dict[str, str]:
    """The attributes of dataset `name`: its description, and as JSON lists the names and units of its columns."""
    item = DESCRIPTIONS[name]
    lists = {"columns": item.columns, "units": item.units}
    return {"description": item.text} | {key: json.dumps(values) for key, values in lists.items() if values}
