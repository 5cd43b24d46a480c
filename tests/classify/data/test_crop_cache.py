"""The crop cache: frames that fit are read once, other frames each time, and values never depend on the cache."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from classify.data.batches import PairBatch
from classify.data.crop_cache import GIB, CropCache, PersonInputs, build_crop_cache
from classify.data.crops import FrameCrops
from classify.data.selection import select_splits
from classify.model.checkpoint import load_checkpoint
from classify.run_folder import RunFolder
from classify.train.end_to_end import train_end_to_end
from configs.splits import SPLIT_NAMES
from extract.backbones.resnet import Backbone
from extract.backbones.weights import load_resnet
from extract.images.read import FrameError, read_frame
from store.tables import Tables
from tests.classify.data.conftest import Images
from tests.factories import IDENTITY, crop_batches, equal_batches, small_config

CROP_BYTES = 3 * 32 * 32
FRAMES = 12


def frame_crops(images: Images, decoded: list[Path] | None = None) -> FrameCrops:
    """Crops cut from the images; the paths of decoded images are appended to `decoded`."""

    def read(path: Path) -> Tensor:
        if decoded is not None:
            decoded.append(path)
        return read_frame(path)

    return FrameCrops(*images, 32, read)


def small_cache(tables: Tables, crops: PersonInputs, people: float) -> CropCache:
    """A cache with memory for the crops of `people` people."""
    config = small_config(crop_cache=people * CROP_BYTES / GIB)
    return build_crop_cache(crops, tables, select_splits(tables, config), None, config)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 3])
def test_each_frame_is_decoded_once_and_only_in_the_first_epoch(images: Images, workers: int) -> None:
    tables, paths = images
    decoded: list[Path] = []
    cache = small_cache(tables, frame_crops(images, decoded), 1000)
    first = crop_batches(tables, cache, batch_size=2, num_workers=workers)
    train = select_splits(tables, small_config())["train"]
    assert sorted(decoded) == sorted(paths[frame] for frame in np.unique(tables.pair_frame[train.pairs]))
    decoded.clear()
    assert equal_batches(crop_batches(tables, cache, batch_size=2, num_workers=workers), first)
    assert not decoded
    assert equal_batches(first, crop_batches(tables, frame_crops(images), batch_size=2))


@pytest.mark.parametrize("people", [0, 1, 12, 31.5])
def test_frames_that_do_not_fit_are_read_again(images: Images, caplog: pytest.LogCaptureFixture, people: float) -> None:
    tables, paths = images
    total = len(np.unique(tables.pair))
    decoded: list[Path] = []
    with caplog.at_level(logging.INFO, "stage2"):
        cache = small_cache(tables, frame_crops(images, decoded), people)
    assert people - 5 < cache.size <= people
    assert f"crops of {cache.size} of {total} people" in caplog.text

    def epoch(inputs: PersonInputs) -> list[list[PairBatch]]:
        return [crop_batches(tables, inputs, batch_size=24, split=split, seed=None) for split in SPLIT_NAMES]

    first = epoch(cache)
    decoded.clear()
    second, uncached = epoch(cache), epoch(frame_crops(images))
    ends = np.cumsum([len(np.unique(tables.pair[tables.pair_frame == frame])) for frame in range(FRAMES)])
    assert cache.size in (0, *ends.tolist())  # no frame is cached in part
    assert decoded == [paths[frame] for frame in range(FRAMES) if ends[frame] > cache.size]  # train frames first
    assert all(equal_batches(*both) for both in zip(first, second, strict=True))
    assert all(equal_batches(*both) for both in zip(first, uncached, strict=True))


def test_a_frame_that_could_not_be_read_is_not_cached(images: Images, tmp_path: Path) -> None:
    tables, paths = images
    crops, persons = frame_crops(images), np.unique(tables.pair)[:7]
    missing = [tmp_path / f"{frame}.jpg" for frame in range(FRAMES)]
    cache = small_cache(tables, frame_crops((tables, missing)), 1000)
    for _ in range(2):
        with pytest.raises(FrameError):
            cache(persons)
    for path, copy in zip(paths, missing, strict=True):
        copy.write_bytes(path.read_bytes())
    assert torch.equal(cache(persons), crops(persons))


def frozen_backbone(blocks: int) -> tuple[Backbone, list[int]]:
    """A ResNet18 with frozen stages, and the number of persons of each forward pass of its stem."""
    backbone = load_resnet("resnet18", "random", False)
    backbone.freeze_stages(blocks)
    passes: list[int] = []
    backbone.resnet.conv1.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    return backbone, passes


@pytest.mark.parametrize("blocks", [1, 3])
def test_frozen_maps_are_computed_once_per_person(images: Images, blocks: int) -> None:
    tables, _ = images
    config = small_config(freeze_blocks=blocks)
    backbone, passes = frozen_backbone(blocks)
    decoded: list[Path] = []
    cache = build_crop_cache(frame_crops(images, decoded), tables, select_splits(tables, config), backbone, config)
    passes.clear()
    first = crop_batches(tables, cache, freeze_blocks=blocks, num_workers=2)
    train = select_splits(tables, config)["train"]
    assert sum(passes) == len(np.unique(tables.pair[train.pairs]))
    passes.clear()
    decoded.clear()
    assert equal_batches(crop_batches(tables, cache, freeze_blocks=blocks), first)
    assert not passes
    assert not decoded
    assert first[0].persons.dtype == torch.float32
    backbone.eval()
    with torch.no_grad():
        for maps, crops in zip(first, crop_batches(tables, frame_crops(images)), strict=True):
            assert torch.allclose(backbone(maps.persons), backbone(crops.persons), rtol=1e-5, atol=1e-5)


def losses(folder: Path) -> list[float]:
    records = [json.loads(line) for line in RunFolder(folder).metrics.read_text().splitlines()]
    return [record[name] for record in records for name in ("train_loss", "val_loss")]


@pytest.mark.usefixtures("quick_baselines", "no_plots")
def test_a_run_on_frozen_maps_equals_the_run_without_cache(images: Images, tmp_path: Path) -> None:
    def train(name: str, gib: float) -> tuple[list[Tensor], int]:
        """The last model's tensors, and the number of persons that the stem has forwarded."""
        config = small_config(tmp_path / name, freeze_blocks=2, crop_cache=gib, epochs=2)
        backbone, passes = frozen_backbone(2)
        run = train_end_to_end(images[0], frame_crops(images), backbone, config, IDENTITY)
        return list(load_checkpoint(RunFolder(run.folder).last, resume=True).model.values()), sum(passes)

    cached, cached_passes = train("cached", 1.0)
    uncached, uncached_passes = train("uncached", 0.0)
    assert cached_passes == len(np.unique(images[0].pair)) + 1  # one more to get the shape of the maps
    assert uncached_passes > 3 * cached_passes
    for one, two in zip(cached, uncached, strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-6)
    assert losses(tmp_path / "cached") == pytest.approx(losses(tmp_path / "uncached"), rel=1e-5)


@pytest.mark.parametrize("settings", [{"augment": True}, {"crop_cache": 0.0005}])
def test_crops_are_cached_if_maps_cannot_be(images: Images, settings: dict[str, Any]) -> None:
    """Augmented crops have different maps in each epoch; 0.5 MiB is enough for the crops but not for the maps."""
    tables, _ = images
    config = small_config(freeze_blocks=1, **settings)
    backbone, _ = frozen_backbone(1)
    cache = build_crop_cache(frame_crops(images), tables, select_splits(tables, config), backbone, config)
    assert cache.size == len(np.unique(tables.pair))
    assert cache(np.unique(tables.pair)[:2]).dtype == torch.uint8


def test_cached_maps_have_the_gradients_of_crops(images: Images) -> None:
    tables, _ = images
    config, persons = small_config(freeze_blocks=2), np.unique(tables.pair)[:9]
    backbone, _ = frozen_backbone(2)
    crops = frame_crops(images)
    gradients = []
    for inputs in (crops, build_crop_cache(crops, tables, select_splits(tables, config), backbone, config)):
        backbone.zero_grad()
        backbone(inputs(persons)).square().sum().backward()
        gradients.append([parameter.grad for parameter in backbone.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == sum(parameter.requires_grad for parameter in backbone.parameters())
    for one, two in zip(*gradients, strict=True):
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-6 * float(one.abs().max()))
