"""Augmentation against plain loops over single crops; seeded, within range, and in training alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from classify.data.augment import ERASED, JITTER, SHIFT, AugmentParams, augment, draw_params
from classify.data.batches import PairBatch
from classify.data.crops import CropSource, FrameCrops
from classify.data.selection import select_splits
from classify.model.checkpoint import load_checkpoint
from classify.train.end_to_end import train_end_to_end
from extract.annotations.spatial import spatial_features
from store.tables import Tables
from tests.classify.conftest import Interrupt
from tests.factories import TinyBackbone, make_tables, small_config, write_images

CPU = torch.device("cpu")
ABOUT = {"name": "tiny", "weights_sha256": "0"}
UPRIGHT, MIRRORED = 0.9, 0.1  # a draw below 0.5 mirrors


def crops_of(count: int, size: int = 40, seed: int = 0) -> Tensor:
    crops = torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(seed))
    return crops.to(torch.uint8).contiguous(memory_format=torch.channels_last)


def still(count: int) -> Tensor:
    """Augmentation parameters (P, 9) that change nothing: no shift, factors of 1, nothing hidden."""
    person = torch.full((count, 9), 0.5)
    person[:, 4] = 0.999
    return person


def test_strength_0_changes_nothing() -> None:
    crops = crops_of(30)
    assert torch.equal(augment(crops, draw_params(1, 2, 30), 0.0), crops)
    assert not torch.equal(augment(crops, draw_params(1, 2, 30)), crops)


def test_middling_draws_change_nothing_and_a_low_coin_mirrors() -> None:
    crops = crops_of(5)
    assert torch.equal(augment(crops, AugmentParams(UPRIGHT, still(5))), crops)
    assert torch.equal(augment(crops, AugmentParams(MIRRORED, still(5))), crops.flip(3))


@pytest.mark.parametrize("coin", [UPRIGHT, MIRRORED])
def test_shifts_are_those_of_a_picture_padded_with_its_edge(coin: float) -> None:
    count, size = 60, 40
    crops, person = crops_of(count, size), still(count)
    person[:, :2] = torch.rand((count, 2), generator=torch.Generator().manual_seed(0))
    found = augment(crops, AugmentParams(coin, person)).numpy()
    most, seen = round(SHIFT * size), set()
    for crop, (x, y), answer in zip(crops.numpy(), person[:, :2].tolist(), found, strict=True):
        upright = crop[:, :, ::-1] if coin == MIRRORED else crop
        padded = np.pad(upright, ((0, 0), (most, most), (most, most)), mode="edge")
        right, down = int(x * (2 * most + 1)), int(y * (2 * most + 1))
        seen.add((right, down))
        assert np.array_equal(answer, padded[:, down : down + size, right : right + size])
    assert len(seen) > (2 * most + 1) ** 2 / 2


def test_brightness_and_contrast_are_those_of_the_formula() -> None:
    count = 40
    crops, person = crops_of(count), still(count)
    person[:, 2:4] = torch.rand((count, 2), generator=torch.Generator().manual_seed(0))
    found = augment(crops, AugmentParams(UPRIGHT, person)).numpy()
    for crop, (bright, contrast), answer in zip(crops.numpy(), person[:, 2:4].double().tolist(), found, strict=True):
        pixels = crop.astype(np.float64)
        jittered = (pixels - pixels.mean()) * (1 - JITTER + 2 * JITTER * contrast) + pixels.mean()
        wanted = np.clip(jittered * (1 - JITTER + 2 * JITTER * bright), 0, 255)
        assert np.abs(answer - wanted).max() < 0.51  # rounded, not wrapped around


def test_the_range_is_kept_at_its_ends() -> None:
    dark, light = torch.zeros((1, 3, 40, 40), dtype=torch.uint8), torch.full((1, 3, 40, 40), 255, dtype=torch.uint8)
    half = torch.cat([dark[..., :20], light[..., :20]], dim=3)
    crops = torch.cat([dark, light, half]).repeat(50, 1, 1, 1)
    found = augment(crops, draw_params(0, 0, 150)).view(50, 3, 3, 40, 40)
    assert found.dtype == torch.uint8
    assert int(found[:, 0].max()) == 0
    assert int(found[:, 1].min()) >= 255 * (1 - JITTER) - 1
    dark_share = (found[:, 2] < 128).float().mean((1, 2, 3))  # wrapped numbers would turn light into dark
    assert float(dark_share.min()) > 0.3
    assert float(dark_share.max()) < 0.7


def test_a_quarter_of_the_crops_hides_one_rectangle_in_their_mean_colour() -> None:
    count, size = 2000, 32
    crops, person = crops_of(count, size), still(count)
    person[:, 4:] = torch.rand((count, 5), generator=torch.Generator().manual_seed(0))
    found = augment(crops, AugmentParams(UPRIGHT, person))
    changed = (found != crops).any(dim=1)  # (P, S, S)
    hidden = changed.any(dim=(1, 2))
    assert float(hidden.float().mean()) == pytest.approx(ERASED, abs=0.03)
    assert not hidden.all()
    places = torch.zeros((size, size))
    for crop, answer, mask in zip(crops[hidden], found[hidden], changed[hidden], strict=True):
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
        assert mask[box].float().mean() > 0.95  # a random pixel may have had the mean colour
        assert 0.1 * size <= min(len(rows), len(columns)) <= max(len(rows), len(columns)) <= 0.5 * size
        assert (answer[:, *box].float() - crop.float().mean((1, 2))[:, None, None]).abs().max() < 0.51
        places[box] += 1
    assert places.any(0).all()  # every column is hidden now and then, and every row
    assert places.any(1).all()


def test_draws_come_from_the_epochs_seed_and_the_batchs_number_alone() -> None:
    torch.manual_seed(1)
    one = draw_params(5, 7, 20)
    torch.manual_seed(2)
    two = draw_params(5, 7, 20)
    assert one.mirror == two.mirror
    assert torch.equal(one.person, two.person)
    others = [draw_params(5, 8, 20), draw_params(6, 7, 20)]
    assert all(not torch.equal(one.person, other.person) for other in others)
    coins = [draw_params(5, number, 3).mirror for number in range(400)]
    assert float(np.mean(np.array(coins) < 0.5)) == pytest.approx(0.5, abs=0.08)


def test_ranks_share_the_draws_of_the_joint_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = draw_params(5, 7, 9)
    parts = []
    for part in np.array_split(np.arange(9), 2):
        monkeypatch.setattr("classify.data.augment.local_share", lambda _, part=part: part)
        parts.append(draw_params(5, 7, 9))
    assert {part.mirror for part in parts} == {whole.mirror}
    assert torch.equal(torch.cat([part.person for part in parts]), whole.person)


def test_mirroring_the_panorama_changes_no_spatial_feature() -> None:
    rng = np.random.default_rng(0)
    width = 3760
    box_a, box_b = (
        np.stack([rng.uniform(-60, width, 500), rng.uniform(0, 300, 500), *rng.uniform(10, 150, (2, 500))], axis=1)
        for _ in range(2)
    )
    size, people = np.tile([width, 480], (500, 1)), rng.integers(2, 30, 500)

    def mirrored(box: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.stack([width - box[:, 0] - box[:, 2], *box[:, 1:].T], axis=1)

    upright = spatial_features(box_a, box_b, size, people)
    assert np.allclose(spatial_features(mirrored(box_a), mirrored(box_b), size, people), upright, rtol=1e-5, atol=1e-6)
    assert not np.allclose(spatial_features(mirrored(box_a), box_b, size, people), upright, atol=0.1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tables, FrameCrops]:
    tables = make_tables(frames=3, people=5, pairs=4)
    return tables, FrameCrops(tables, write_images(tables, tmp_path_factory.mktemp("images")), 32)


def batches(pictures: tuple[Tables, FrameCrops], generator: torch.Generator | None, **settings: Any) -> list[PairBatch]:
    config = small_config(**settings)
    source = CropSource(*pictures, select_splits(pictures[0], config)["train"], config, device=CPU)
    return list(source.epoch(generator))


def test_training_batches_alone_are_augmented(pictures: tuple[Tables, FrameCrops]) -> None:
    def same(one: list[PairBatch], other: list[PairBatch]) -> bool:
        return all(torch.equal(a.persons, b.persons) for a, b in zip(one, other, strict=True))

    assert same(batches(pictures, None, augment=True), batches(pictures, None))
    drawn, plain = (batches(pictures, torch.Generator().manual_seed(1), augment=flag) for flag in (True, False))
    assert not same(drawn, plain)
    for one, other in zip(drawn, plain, strict=True):
        for name in ("a", "b", "spatial", "label"):
            assert torch.equal(getattr(one, name), getattr(other, name))
    generator = torch.Generator().manual_seed(1)
    assert same(batches(pictures, generator, augment=True), drawn)
    assert not same(batches(pictures, generator, augment=True), drawn)  # the next epoch's


@pytest.mark.parametrize("step", [2, 9, 14])
def test_an_augmented_run_that_was_killed_goes_on_to_the_same_bytes(
    tmp_path: Path,
    step: int,
    pictures: tuple[Tables, FrameCrops],
    monkeypatch: pytest.MonkeyPatch,
    interrupt_at_step: Interrupt,
) -> None:
    monkeypatch.setattr("classify.evaluate.baselines.ROUNDS", 1)
    monkeypatch.setattr("classify.train.run.plot_run", lambda *_: None)

    def start(folder: Path, augmented: bool = True) -> list[dict[str, Any]]:
        torch.manual_seed(0)
        config = small_config(folder, epochs=5, augment=augmented)
        train_end_to_end(*pictures, TinyBackbone(), config, ABOUT, resume=True)  # type: ignore[arg-type]
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    whole = start(tmp_path / "whole")
    with interrupt_at_step(step), pytest.raises(KeyboardInterrupt):
        start(tmp_path / "cut")
    assert start(tmp_path / "cut") == whole
    states = [load_checkpoint(tmp_path / name / "last.pth", resume=True).model for name in ("whole", "cut")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert start(tmp_path / "plain", augmented=False) != whole


def test_every_epoch_draws_numbers_of_its_own(pictures: tuple[Tables, FrameCrops]) -> None:
    """One batch of all people, whose rows are sorted: the order of the pairs makes no difference."""
    order = torch.Generator().manual_seed(0)
    (one,), (other,) = (batches(pictures, order, augment=True, batch_size=1000) for _ in range(2))
    assert one.persons.shape == other.persons.shape
    assert not torch.equal(one.persons, other.persons)


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_half_the_batches_are_mirrored_at_full_strength(strength: float) -> None:
    crops = crops_of(1)
    for coin, mirrored in ((0.49 * strength, True), (0.51 * strength, False)):
        answer = augment(crops, AugmentParams(coin, still(1)), strength)
        assert torch.equal(answer, crops.flip(3) if mirrored else crops)
