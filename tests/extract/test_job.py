"""The extraction job writes the correct features and tables, and computes nothing twice."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import extract.images.read
import extract.units.prepare
import extract.units.stream
from configs.errors import ConfigError
from extract.annotations.jrdb import IMAGES
from extract.backbones.weights import LoadedBackbone
from store.files import sha256
from store.format.shard_file import read_shard
from store.reader import load_store
from tests.jobs import extract_store, store_files
from tests.jrdb_folder import SIZE, read_labels
from tests.oracles import round_half_up, spatial_oracle


def plain_features(data: Path, loaded: LoadedBackbone, flip: bool = False) -> NDArray[np.float32]:
    """Returns the features of all people, computed one by one with Pillow's crops and torchvision's model."""
    model = torchvision.models.resnet18(weights=None)
    model.fc = nn.Identity()
    model.load_state_dict(loaded.backbone.resnet.state_dict())
    model.eval()
    normalise = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    rows = []
    for scene in sorted(path.name for path in (data / IMAGES).iterdir()):
        for frame, people in sorted(read_labels(data, scene).items()):
            with Image.open(data / IMAGES / scene / frame) as image:
                pixels = np.asarray(image.convert("RGB"))
            for item in people:
                x, y, w, h = item["box"]
                pad_x, pad_y = round_half_up(0.2 * w), round_half_up(0.2 * h)
                strip = np.roll(pixels, pad_x - x, axis=1)[max(y - pad_y, 0) : y + h + pad_y, : w + 2 * pad_x]
                crop = np.asarray(Image.fromarray(strip).resize((32, 32), Image.Resampling.BILINEAR)).copy()
                tensor = normalise(torch.from_numpy(crop).permute(2, 0, 1).float() / 255)
                with torch.no_grad():
                    rows.append(model((tensor.flip(-1) if flip else tensor)[None])[0].numpy())
    return np.stack(rows)


def largest_error(actual: Any, expected: Any) -> float:
    """Returns the largest error of a row, relative to its length."""
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    return float((np.linalg.norm(actual - expected, axis=1) / np.linalg.norm(expected, axis=1)).max())


def test_features_of_both_views_equal_those_of_plain_code(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    """Within 1 %, because crops of Pillow and torch differ by up to one level per pixel."""
    summary = extract_store(loaded, data, tmp_path / "a.store", dtype="float32", views=2)
    features = load_store(tmp_path / "a.store")
    assert largest_error(features.visual, plain_features(data, loaded)) < 0.01
    assert features.visual_flipped is not None
    assert largest_error(features.visual_flipped, plain_features(data, loaded, flip=True)) < 0.01
    assert (summary.statistics.frames_decoded, summary.statistics.crops_forwarded) == (8, 80)


def test_tables_equal_the_annotations(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    extract_store(loaded, data, tmp_path / "a.store")
    tables = load_store(tmp_path / "a.store").tables
    people = [
        (scene, frame, item)
        for scene in ("cafe", "hall")
        for frame, items in sorted(read_labels(data, scene).items())
        for item in items
    ]
    assert [f"pedestrian:{number}" for number in tables.person_id] == [item["label_id"] for *_, item in people]
    assert tables.box.tolist() == [item["box"] for *_, item in people]
    assert (tables.frame_size == SIZE).all()
    expected = {
        (scene, frame, int(item["label_id"][11:]), int(entry["pair"][11:])): tuple(sorted(entry["inter_labels"]))
        for scene, frame, item in people
        for entry in item["H-interaction"]
    }
    actual = {
        (
            tables.scenes[tables.frame_scene[frame]],
            str(tables.frame_name[frame]),
            int(tables.person_id[a]),
            int(tables.person_id[b]),
        ): tables.label_sets[label]
        for (a, b), frame, label in zip(tables.pair, tables.pair_frame, tables.label, strict=True)
    }
    assert actual == expected
    rows = [spatial_oracle(tables.box[a], tables.box[b], *SIZE, 5) for a, b in tables.pair]
    np.testing.assert_allclose(tables.spatial, rows, rtol=1e-5, atol=1e-6)


def test_shards_contain_the_checksums_of_the_image_files(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    extract_store(loaded, data, tmp_path / "a.store")
    for path in (tmp_path / "a.store" / "shards").iterdir():
        shard = read_shard(path)
        images = [data / IMAGES / shard.scene / name for name in shard.frame_name]
        assert shard.frame_sha256.tolist() == [sha256(image.read_bytes()) for image in images]


@pytest.mark.parametrize(
    "settings", [{"num_workers": 1}, {"num_workers": 4}, {"batch_size": 1}, {"batch_size": 64}, {"batch_size": 0}]
)
def test_workers_and_batch_sizes_do_not_change_a_byte(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, settings: dict[str, int]
) -> None:
    extract_store(loaded, data, tmp_path / "a.store")
    extract_store(loaded, data, tmp_path / "b.store", **settings)
    assert store_files(tmp_path / "a.store") == store_files(tmp_path / "b.store")


def test_batches_span_units(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    frozen_forward = extract.units.stream.frozen_forward

    def counting_forward(*arguments: Any) -> Any:
        forward = frozen_forward(*arguments)
        return lambda crops: sizes.append(len(crops)) or forward(crops)

    monkeypatch.setattr(extract.units.stream, "frozen_forward", counting_forward)
    summary = extract_store(loaded, data, tmp_path / "a.store", batch_size=7)
    assert sorted(sizes) == [5, 7, 7, 7, 7, 7]  # 40 crops of about five units
    assert (summary.statistics.crops_forwarded, summary.statistics.batch_size) == (40, 7)


def test_float16_features_are_rounded_float32_features(tmp_path: Path, loaded: LoadedBackbone, data: Path) -> None:
    extract_store(loaded, data, tmp_path / "a.store", dtype="float32")
    extract_store(loaded, data, tmp_path / "b.store")
    full, half = load_store(tmp_path / "a.store").visual, load_store(tmp_path / "b.store").visual
    np.testing.assert_array_equal(full.astype(np.float16), half)


def test_each_frame_is_decoded_once_and_each_person_cropped_once(
    tmp_path: Path, loaded: LoadedBackbone, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Path] = []
    decode = extract.units.prepare.decode_frame
    monkeypatch.setattr(
        extract.units.prepare, "decode_frame", lambda raw, path: decoded.append(path) or decode(raw, path)
    )
    cropped: list[int] = []
    crop = extract.units.prepare.crop_people
    monkeypatch.setattr(
        extract.units.prepare, "crop_people", lambda f, b, *rest: cropped.append(len(b)) or crop(f, b, *rest)
    )
    extract_store(loaded, data, tmp_path / "a.store")
    assert len(decoded) == len(set(decoded)) == 8
    assert sum(cropped) == 40


def test_w8_a_new_store_is_not_inside_the_data_or_another_store(
    tmp_path: Path, loaded: LoadedBackbone, data: Path
) -> None:
    extract_store(loaded, data, tmp_path / "a.store")
    for path in (data / "labels" / "x.store", data / IMAGES / "x.store", tmp_path / "a.store" / "shards" / "x.store"):
        with pytest.raises(ConfigError, match="is inside"):
            extract_store(loaded, data, path)
        assert not path.exists()
