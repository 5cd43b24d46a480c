"""Batches of cached features: sampling, the order of a pair's persons, and mirrored views."""

from dataclasses import replace

import pytest
import torch

from classify.data.batches import draw_order, sampling_weights
from classify.data.cached import CachedFeatures, CachedSource
from classify.data.selection import Split, select_splits
from tests.factories import equal_batches, make_features, make_tables, small_config


def test_the_sampler_draws_all_classes_equally_often() -> None:
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10).numpy()
    split = Split("train", labels, labels)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.from_numpy(labels)[
        torch.cat([draw_order(1000, sampling_weights(split), generator) for _ in range(20)])
    ]
    assert (torch.bincount(drawn) / len(drawn)).numpy() == pytest.approx([1 / 3] * 3, abs=0.02)


def test_swapping_the_persons_of_a_pair_does_not_change_batches() -> None:
    tables = make_tables()
    features = CachedFeatures.load(make_features(tables), torch.device("cpu"))
    split = select_splits(tables, small_config())["train"]
    swapped_tables = replace(tables, pair=tables.pair[:, ::-1].copy())
    for original, swapped in zip(
        CachedSource(tables, features, split, 7).epoch(torch.Generator().manual_seed(1)),
        CachedSource(swapped_tables, features, split, 7).epoch(torch.Generator().manual_seed(1)),
        strict=True,
    ):
        assert equal_batches([original], [swapped])


def test_mirrored_views_are_used_only_in_training() -> None:
    tables = make_tables()
    features = make_features(tables, views=2)
    split = select_splits(tables, small_config())["train"]
    source = CachedSource(tables, CachedFeatures.load(features, torch.device("cpu")), split, 8)
    original = torch.from_numpy(features.visual)
    for batch in source.epoch():
        assert torch.isin(batch.persons, original).all()
    seen = [bool(torch.isin(b.persons, original).all()) for b in source.epoch(torch.Generator().manual_seed(0))]
    assert set(seen) == {True, False}
