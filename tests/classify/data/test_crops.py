"""Batches of crops: each person once, in groups that share persons, from images or from a store."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from classify.data.crop_cache import GIB, build_crop_cache
from classify.data.crops import CropSource, FrameCrops, StoredCrops, connected_groups, shuffle_groups
from classify.data.selection import Split, select_splits
from classify.model.head import Stage2Model, build_head
from configs.errors import MismatchError
from store.tables import Tables
from tests.classify.data.conftest import Images
from tests.factories import TinyBackbone, crop_batches, equal_batches, make_tables, small_config, write_images

CPU = torch.device("cpu")


class CountingBackbone(nn.Module):
    """A backbone that records the number of persons of each forward and backward pass."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = TinyBackbone().eval()
        self.forward_persons: list[int] = []
        self.backward_persons: list[int] = []

    def forward(self, crops: Tensor) -> Tensor:
        features: Tensor = self.inner(crops)
        self.forward_persons.append(len(features))
        features.register_hook(lambda gradient: self.backward_persons.append(len(gradient)))
        return features


def test_a_person_in_ten_pairs_is_forwarded_once_and_gets_the_gradient_of_all(tmp_path: Path) -> None:
    tables = make_tables(frames=1, people=11, pairs=10)
    pair = np.stack([np.zeros(10, np.int64), np.arange(1, 11)], axis=1)
    tables = replace(tables, pair=np.concatenate([pair + 11 * frame for frame in range(4)]))
    crops = FrameCrops(tables, write_images(tables, tmp_path), 32)
    split = Split("train", np.arange(10), np.zeros(10, np.int64))
    config = small_config(batch_size=10, dropout=0.0)
    backbone = CountingBackbone()
    model = Stage2Model(backbone, build_head(config, 8)).eval()
    (batch,) = CropSource(tables, crops, split, config, device=CPU).epoch()
    model(batch).square().sum().backward()
    assert backbone.forward_persons == [11]
    assert backbone.backward_persons == [11]
    joint = [parameter.grad.clone() for parameter in backbone.parameters() if parameter.grad is not None]
    model.zero_grad()
    for single_pair in CropSource(tables, crops, split, replace(config, batch_size=1), device=CPU).epoch():
        model(single_pair).square().sum().backward()
    assert sum(backbone.forward_persons[1:]) == 20
    assert len(joint) == 4
    for gradient, parameter in zip(joint, backbone.parameters(), strict=True):
        assert parameter.grad is not None
        assert torch.allclose(gradient, parameter.grad, rtol=1e-4, atol=1e-7)


class FakeCrops:
    """Behaves like store.crops.Crops: returns rows of crops, channels first."""

    crop_size = 32

    def __init__(self, tables: Tables, paths: list[Path]) -> None:
        self.tables = tables
        crops = FrameCrops(tables, paths, 32)(np.arange(len(tables.box)))
        self._rows = crops.contiguous().reshape(len(crops), -1).numpy()

    def rows(self, persons: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.asarray(self._rows[persons])


@pytest.mark.parametrize("cached_people", [0, 12, 1000])
def test_stored_crops_equal_crops_of_the_images(images: Images, cached_people: int) -> None:
    tables, paths = images
    stored, cut = StoredCrops(FakeCrops(*images), 32), FrameCrops(tables, paths, 32)  # type: ignore[arg-type]
    config = small_config(crop_cache=cached_people * 3 * 32 * 32 / GIB)
    cache = build_crop_cache(stored, tables, select_splits(tables, config), None, config)  # type: ignore[arg-type]
    assert equal_batches(crop_batches(tables, cache), crop_batches(tables, cut))
    persons = np.unique(tables.pair)
    assert torch.equal(stored(persons), cut(persons))
    assert stored(persons).stride() == cut(persons).stride()  # the same layout, so the same floating-point sums


def test_stored_crops_of_another_size_are_refused(images: Images) -> None:
    with pytest.raises(MismatchError, match="crop_size 32, not 64"):
        StoredCrops(FakeCrops(*images), 64)  # type: ignore[arg-type]


def test_connected_groups_are_chains_of_shared_persons() -> None:
    pairs = np.array([[5, 9], [0, 1], [30, 31], [1, 2], [9, 30], [7, 8], [2, 3]])
    groups = connected_groups(pairs).tolist()
    assert groups[0] == groups[2] == groups[4]
    assert groups[1] == groups[3] == groups[6]
    assert len(set(groups)) == 3 == max(groups) + 1


def test_shuffled_groups_stay_together_and_have_every_sample_once() -> None:
    tables = make_tables(frames=20)
    pairs = tables.pair
    groups = connected_groups(pairs)
    orders = [shuffle_groups(groups, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    for order in orders:
        assert sorted(order.tolist()) == list(range(len(pairs)))
        changes = int((groups[order].diff() != 0).sum())
        assert changes == int(groups.max())  # each group is one contiguous run
    first = groups == groups[0]
    assert [i for i in orders[0].tolist() if first[i]] != [i for i in orders[2].tolist() if first[i]]


def test_grouping_saves_forward_passes(images: Images) -> None:
    tables, paths = images
    crops = FrameCrops(tables, paths, 32)
    grouped = sum(len(batch.persons) for batch in crop_batches(tables, crops, batch_size=8))
    config = small_config(batch_size=8)
    split = select_splits(tables, config)["train"]
    balanced = CropSource(tables, crops, split, config, device=CPU, balanced=True)
    ungrouped = sum(len(batch.persons) for batch in balanced.epoch(torch.Generator().manual_seed(3)))
    assert grouped < 0.8 * ungrouped
