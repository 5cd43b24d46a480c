"""No wasted work: who is kept in memory is read once, and what a batch needs of a person is computed once."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from classify.data.batches import PairBatch
from classify.data.crop_cache import GIB, CropCache, PersonInputs, build_crop_cache
from classify.data.crops import CropSource, FrameCrops, StoredCrops, connected_groups, shuffle_groups
from classify.data.selection import Split, select_splits
from classify.train.end_to_end import train_end_to_end
from configs.errors import MismatchError
from extract.backbones.resnet import Backbone
from extract.backbones.weights import load_resnet
from extract.images.read import FrameError
from store.tables import Tables
from tests.factories import TinyBackbone, make_tables, small_config, write_images

CPU = torch.device("cpu")
ABOUT = {"name": "tiny", "weights_sha256": "0"}
CROP = 3 * 32 * 32  # bytes
FRAMES = 12


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tables, list[Path]]:
    tables = make_tables(frames=3, people=5, pairs=4)
    return tables, write_images(tables, tmp_path_factory.mktemp("images"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The images that were decoded, in order."""
    from classify.data import crops as crop_batches

    paths: list[Path] = []
    read = crop_batches.read_frame

    def counted(path: Path) -> Tensor:
        paths.append(path)
        return read(path)

    monkeypatch.setattr(crop_batches, "read_frame", counted)
    return paths


def frame_crops(tables: Tables, paths: list[Path]) -> FrameCrops:
    return FrameCrops(tables, paths, 32)


def kept(tables: Tables, crops: PersonInputs, people: float, **settings: Any) -> CropCache:
    """A cache of so many crops."""
    config = small_config(crop_cache=people * CROP / GIB, **settings)
    return build_crop_cache(crops, tables, select_splits(tables, config), None, config)  # type: ignore[arg-type]


def epoch(
    tables: Tables, persons: PersonInputs, seed: int | None = 3, split: str = "train", **settings: Any
) -> list[PairBatch]:
    config = small_config(**settings)
    source = CropSource(tables, persons, select_splits(tables, config)[split], config, device=CPU)
    return list(source.epoch(None if seed is None else torch.Generator().manual_seed(seed)))


def same(one: list[PairBatch], other: list[PairBatch]) -> bool:
    names = PairBatch.__slots__
    return len(one) == len(other) and all(
        torch.equal(getattr(a, name), getattr(b, name)) and getattr(a, name).stride() == getattr(b, name).stride()
        for a, b in zip(one, other, strict=True)
        for name in names
    )


@pytest.mark.parametrize("workers", [0, 3])
def test_a_frame_is_decoded_once_and_later_epochs_decode_none(
    pictures: tuple[Tables, list[Path]], decoded: list[Path], workers: int
) -> None:
    tables, paths = pictures
    persons = kept(tables, frame_crops(*pictures), 1000)
    first = epoch(tables, persons, batch_size=2, num_workers=workers)
    train = sorted(
        paths[frame] for frame in np.unique(tables.pair_frame[select_splits(tables, small_config())["train"].pairs])
    )
    assert sorted(decoded) == train
    decoded.clear()
    assert same(epoch(tables, persons, batch_size=2, num_workers=workers), first)
    assert not decoded
    assert same(first, epoch(tables, frame_crops(*pictures), batch_size=2))


@pytest.mark.parametrize("people", [0, 1, 12, 31.5])
def test_who_does_not_fit_is_read_again(
    pictures: tuple[Tables, list[Path]], decoded: list[Path], caplog: pytest.LogCaptureFixture, people: float
) -> None:
    tables, paths = pictures
    total = len(np.unique(tables.pair))
    with caplog.at_level(logging.INFO, "stage2"):
        persons = kept(tables, frame_crops(*pictures), people)
    assert people - 5 < persons.size <= people
    assert f"crops of {persons.size} of {total} people" in caplog.text
    batches = [epoch(tables, persons, batch_size=24, split=split, seed=None) for split in ("train", "val", "test")]
    decoded.clear()
    again = [epoch(tables, persons, batch_size=24, split=split, seed=None) for split in ("train", "val", "test")]
    offset = np.cumsum([len(np.unique(tables.pair[tables.pair_frame == frame])) for frame in range(FRAMES)])
    assert persons.size in (0, *offset.tolist())  # no frame is kept in part
    assert decoded == [paths[frame] for frame in range(FRAMES) if offset[frame] > persons.size]  # train's come first
    plain = frame_crops(*pictures)
    fresh = [epoch(tables, plain, batch_size=24, split=split, seed=None) for split in ("train", "val", "test")]
    assert all(same(*both) for both in zip(batches, again, strict=True))
    assert all(same(*both) for both in zip(batches, fresh, strict=True))


class Counting(nn.Module):
    """A backbone that notes how many persons went forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = TinyBackbone().eval()
        self.forward_rows: list[int] = []
        self.backward_rows: list[int] = []

    def forward(self, crops: Tensor) -> Tensor:
        features: Tensor = self.inner(crops)
        self.forward_rows.append(len(features))
        features.register_hook(lambda gradient: self.backward_rows.append(len(gradient)))
        return features


def test_a_person_in_ten_pairs_is_forwarded_once_and_gets_the_gradient_of_all(tmp_path: Path) -> None:
    from classify.model.head import Stage2Model, build_head

    tables = make_tables(frames=1, people=11, pairs=10)
    pair = np.stack([np.zeros(10, np.int64), np.arange(1, 11)], axis=1)
    tables = replace(tables, pair=np.concatenate([pair + 11 * frame for frame in range(4)]))
    crops = frame_crops(tables, write_images(tables, tmp_path))
    split = Split("train", np.arange(10), np.zeros(10, np.int64))
    config = small_config(batch_size=10, dropout=0.0)
    backbone = Counting()
    model = Stage2Model(backbone, build_head(config, 8)).eval()
    (batch,) = CropSource(tables, crops, split, config, device=CPU).epoch()
    model(batch).square().sum().backward()
    assert backbone.forward_rows == [11]
    assert backbone.backward_rows == [11]
    once = [parameter.grad.clone() for parameter in backbone.parameters() if parameter.grad is not None]
    model.zero_grad()
    for alone in CropSource(tables, crops, split, replace(config, batch_size=1), device=CPU).epoch():
        model(alone).square().sum().backward()
    assert sum(backbone.forward_rows[1:]) == 20
    assert len(once) == 4
    for gradient, parameter in zip(once, backbone.parameters(), strict=True):
        assert parameter.grad is not None
        assert torch.allclose(gradient, parameter.grad, rtol=1e-4, atol=1e-7)


def still_backbone(blocks: int) -> Backbone:
    backbone = load_resnet("resnet18", "random", False)
    backbone.freeze_stages(blocks)
    return backbone


@pytest.fixture
def forwarded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many persons went through the still stages, call by call."""
    counts: list[int] = []
    through = Backbone.forward_frozen_stages

    def counted(self: Backbone, crops: Tensor) -> Tensor:
        counts.append(len(crops))
        return through(self, crops)

    monkeypatch.setattr(Backbone, "forward_frozen_stages", counted)
    return counts


@pytest.mark.parametrize("blocks", [1, 3])
def test_frozen_maps_are_made_once_a_person(
    pictures: tuple[Tables, list[Path]], forwarded: list[int], decoded: list[Path], blocks: int
) -> None:
    tables, _ = pictures
    config = small_config(freeze_blocks=blocks)
    backbone = still_backbone(blocks)
    persons = build_crop_cache(frame_crops(*pictures), tables, select_splits(tables, config), backbone, config)
    forwarded.clear()
    first = epoch(tables, persons, freeze_blocks=blocks, num_workers=2)
    train = select_splits(tables, config)["train"]
    assert sum(forwarded) == len(np.unique(tables.pair[train.pairs]))
    forwarded.clear()
    decoded.clear()
    assert same(epoch(tables, persons, freeze_blocks=blocks), first)
    assert not forwarded
    assert not decoded
    assert first[0].persons.dtype == torch.float32
    backbone.eval()
    with torch.no_grad():
        for one, other in zip(first, epoch(tables, frame_crops(*pictures)), strict=True):
            assert torch.allclose(backbone(one.persons), backbone(other.persons), rtol=1e-5, atol=1e-5)


def losses(folder: Path) -> list[float]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record[name] for record in records for name in ("train_loss", "val_loss")]


def test_a_run_on_frozen_maps_is_the_run_without_them(
    pictures: tuple[Tables, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forwarded: list[int]
) -> None:
    monkeypatch.setattr("classify.evaluate.baselines.ROUNDS", 1)
    monkeypatch.setattr("classify.train.run.plot_run", lambda *_: None)

    def start(name: str, gib: float) -> list[Tensor]:
        from classify.model.checkpoint import load_checkpoint

        config = small_config(tmp_path / name, freeze_blocks=2, crop_cache=gib, epochs=2)
        crops = frame_crops(*pictures)
        forwarded.clear()
        run = train_end_to_end(pictures[0], crops, still_backbone(2), config, ABOUT)
        return list(load_checkpoint(run.folder / "last.pth", resume=True).model.values())

    with_maps = start("maps", 1.0)
    few = sum(forwarded)
    without = start("without", 0.0)
    assert few == len(np.unique(pictures[0].pair)) + 1  # and one, to see what maps look like
    assert sum(forwarded) > 3 * few
    for one, other in zip(with_maps, without, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)
    assert losses(tmp_path / "maps") == pytest.approx(losses(tmp_path / "without"), rel=1e-5)


@pytest.mark.parametrize("settings", [{"augment": True}, {"crop_cache": 0.0005}])
def test_crops_are_kept_where_maps_would_not_do(pictures: tuple[Tables, list[Path]], settings: dict[str, Any]) -> None:
    """Augmented crops give other maps each time; and what 0.5 MiB does not hold as maps it holds as crops."""
    tables, _ = pictures
    config = small_config(freeze_blocks=1, **settings)
    persons = build_crop_cache(frame_crops(*pictures), tables, select_splits(tables, config), still_backbone(1), config)
    assert persons.size == len(np.unique(tables.pair))
    assert persons(np.unique(tables.pair)[:2]).dtype == torch.uint8


class Reader:
    """Stands for a store of crops; its rows are channels first, one after another."""

    crop_size = 32

    def __init__(self, tables: Tables, paths: list[Path]) -> None:
        self.tables = tables
        whole = frame_crops(tables, paths)(np.arange(len(tables.box)))
        self._rows = whole.contiguous().reshape(len(whole), -1).numpy()

    def rows(self, persons: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.asarray(self._rows[persons])


@pytest.mark.parametrize("people", [0, 12, 1000])
def test_stored_crops_are_those_of_the_images(pictures: tuple[Tables, list[Path]], people: int) -> None:
    tables, _ = pictures
    stored = kept(tables, StoredCrops(Reader(*pictures), 32), people)
    assert same(epoch(tables, stored), epoch(tables, frame_crops(*pictures)))
    who = np.unique(tables.pair)
    one, other = StoredCrops(Reader(*pictures), 32)(who), frame_crops(*pictures)(who)
    assert torch.equal(one, other)
    assert one.stride() == other.stride()  # the same memory, so the same sums


def test_stored_crops_of_another_size_are_refused_by_name(pictures: tuple[Tables, list[Path]]) -> None:
    with pytest.raises(MismatchError, match="crop_size 32, wanted are 64"):
        StoredCrops(Reader(*pictures), 64)


def test_groups_are_the_chains_of_shared_persons() -> None:
    pairs = np.array([[5, 9], [0, 1], [30, 31], [1, 2], [9, 30], [7, 8], [2, 3]])
    groups = connected_groups(pairs).tolist()
    assert groups[0] == groups[2] == groups[4]
    assert groups[1] == groups[3] == groups[6]
    assert len(set(groups)) == 3 == max(groups) + 1


def test_training_draws_groups_together_and_every_sample_once() -> None:
    tables = make_tables(frames=20)
    pairs = tables.pair
    groups = connected_groups(pairs)
    orders = [shuffle_groups(groups, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    for order in orders:
        assert sorted(order.tolist()) == list(range(len(pairs)))
        changes = int((groups[order].diff() != 0).sum())
        assert changes == int(groups.max())  # no group is left and come back to
    whole = groups == groups[0]
    assert [i for i in orders[0].tolist() if whole[i]] != [i for i in orders[2].tolist() if whole[i]]


def test_groups_save_passes(pictures: tuple[Tables, list[Path]]) -> None:
    tables, _ = pictures
    crops = frame_crops(*pictures)
    grouped = sum(len(batch.persons) for batch in epoch(tables, crops, batch_size=8))
    config = small_config(batch_size=8)
    split = select_splits(tables, config)["train"]
    sampled = CropSource(tables, crops, split, config, device=CPU, balanced=True)
    drawn = sum(len(batch.persons) for batch in sampled.epoch(torch.Generator().manual_seed(3)))
    assert grouped < 0.8 * drawn


def test_what_could_not_be_read_is_not_kept(pictures: tuple[Tables, list[Path]], tmp_path: Path) -> None:
    tables, paths = pictures
    crops, wanted = frame_crops(*pictures), np.unique(tables.pair)[:7]
    away = [tmp_path / f"{frame}.jpg" for frame in range(FRAMES)]
    persons = kept(tables, frame_crops(tables, away), 1000)
    for _ in range(2):
        with pytest.raises(FrameError):
            persons(wanted)
    for path, link in zip(paths, away, strict=True):
        link.write_bytes(path.read_bytes())
    assert torch.equal(persons(wanted), crops(wanted))


def test_kept_maps_have_the_gradients_of_crops(pictures: tuple[Tables, list[Path]]) -> None:
    tables, _ = pictures
    backbone, config, wanted = still_backbone(2), small_config(freeze_blocks=2), np.unique(tables.pair)[:9]
    crops = frame_crops(*pictures)
    gradients = []
    for persons in (crops, build_crop_cache(crops, tables, select_splits(tables, config), backbone, config)):
        backbone.zero_grad()
        backbone(persons(wanted)).square().sum().backward()
        gradients.append([parameter.grad for parameter in backbone.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == sum(parameter.requires_grad for parameter in backbone.parameters())
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6 * float(one.abs().max()))
