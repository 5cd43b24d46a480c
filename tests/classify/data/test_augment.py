"""Augmentation against loops over single crops: seeded, in the pixel range, and only of training batches."""

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
from tests.classify.data.conftest import Images
from tests.factories import IDENTITY, TinyBackbone, read_history, small_config

CPU = torch.device("cpu")
ORIGINAL, MIRRORED = 0.9, 0.1  # a random number below 0.5 mirrors the batch


def random_crops(count: int, size: int = 40, seed: int = 0) -> Tensor:
    crops = torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(seed))
    return crops.to(torch.uint8).contiguous(memory_format=torch.channels_last)


def neutral(count: int) -> Tensor:
    """Random numbers (P, 9) that change nothing: no shift, factors of 1, nothing hidden."""
    person = torch.full((count, 9), 0.5)
    person[:, 4] = 0.999
    return person


def test_strength_0_changes_nothing() -> None:
    crops = random_crops(30)
    assert torch.equal(augment(crops, draw_params(1, 2, 30), 0.0), crops)
    assert not torch.equal(augment(crops, draw_params(1, 2, 30)), crops)


def test_neutral_parameters_change_nothing_or_mirror() -> None:
    crops = random_crops(5)
    assert torch.equal(augment(crops, AugmentParams(ORIGINAL, neutral(5))), crops)
    assert torch.equal(augment(crops, AugmentParams(MIRRORED, neutral(5))), crops.flip(3))


@pytest.mark.parametrize("coin", [ORIGINAL, MIRRORED])
def test_shifts_equal_slices_of_an_edge_padded_image(coin: float) -> None:
    count, size = 60, 40
    crops, person = random_crops(count, size), neutral(count)
    person[:, :2] = torch.rand((count, 2), generator=torch.Generator().manual_seed(0))
    augmented = augment(crops, AugmentParams(coin, person)).numpy()
    limit, shifts = round(SHIFT * size), set()
    for crop, (x, y), result in zip(crops.numpy(), person[:, :2].tolist(), augmented, strict=True):
        oriented = crop[:, :, ::-1] if coin == MIRRORED else crop
        padded = np.pad(oriented, ((0, 0), (limit, limit), (limit, limit)), mode="edge")
        right, down = int(x * (2 * limit + 1)), int(y * (2 * limit + 1))
        shifts.add((right, down))
        assert np.array_equal(result, padded[:, down : down + size, right : right + size])
    assert len(shifts) > (2 * limit + 1) ** 2 / 2


def test_brightness_and_contrast_follow_the_formula() -> None:
    count = 40
    crops, person = random_crops(count), neutral(count)
    person[:, 2:4] = torch.rand((count, 2), generator=torch.Generator().manual_seed(0))
    augmented = augment(crops, AugmentParams(ORIGINAL, person)).numpy()
    for crop, (bright, contrast), result in zip(
        crops.numpy(), person[:, 2:4].double().tolist(), augmented, strict=True
    ):
        pixels = crop.astype(np.float64)
        jittered = (pixels - pixels.mean()) * (1 - JITTER + 2 * JITTER * contrast) + pixels.mean()
        expected = np.clip(jittered * (1 - JITTER + 2 * JITTER * bright), 0, 255)
        assert np.abs(result - expected).max() < 0.51  # rounded, without overflow


def test_pixels_do_not_overflow() -> None:
    dark, light = torch.zeros((1, 3, 40, 40), dtype=torch.uint8), torch.full((1, 3, 40, 40), 255, dtype=torch.uint8)
    half = torch.cat([dark[..., :20], light[..., :20]], dim=3)
    crops = torch.cat([dark, light, half]).repeat(50, 1, 1, 1)
    augmented = augment(crops, draw_params(0, 0, 150)).view(50, 3, 3, 40, 40)
    assert augmented.dtype == torch.uint8
    assert int(augmented[:, 0].max()) == 0
    assert int(augmented[:, 1].min()) >= 255 * (1 - JITTER) - 1
    dark_fraction = (augmented[:, 2] < 128).float().mean((1, 2, 3))  # overflow would turn light into dark
    assert float(dark_fraction.min()) > 0.3
    assert float(dark_fraction.max()) < 0.7


def test_a_quarter_of_the_crops_has_one_rectangle_in_their_mean_colour() -> None:
    count, size = 2000, 32
    crops, person = random_crops(count, size), neutral(count)
    person[:, 4:] = torch.rand((count, 5), generator=torch.Generator().manual_seed(0))
    augmented = augment(crops, AugmentParams(ORIGINAL, person))
    changed = (augmented != crops).any(dim=1)  # (P, S, S)
    hidden = changed.any(dim=(1, 2))
    assert float(hidden.float().mean()) == pytest.approx(ERASED, abs=0.03)
    assert not hidden.all()
    hidden_counts = torch.zeros((size, size))
    for crop, result, mask in zip(crops[hidden], augmented[hidden], changed[hidden], strict=True):
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
        assert mask[box].float().mean() > 0.95  # a random pixel can have the mean colour
        assert 0.1 * size <= min(len(rows), len(columns)) <= max(len(rows), len(columns)) <= 0.5 * size
        assert (result[:, *box].float() - crop.float().mean((1, 2))[:, None, None]).abs().max() < 0.51
        hidden_counts[box] += 1
    assert hidden_counts.any(0).all()  # rectangles reach every column and every row
    assert hidden_counts.any(1).all()


def test_parameters_depend_on_the_seed_and_the_batch_only() -> None:
    torch.manual_seed(1)
    one = draw_params(5, 7, 20)
    torch.manual_seed(2)
    two = draw_params(5, 7, 20)
    assert one.mirror == two.mirror
    assert torch.equal(one.person, two.person)
    different = [draw_params(5, 8, 20), draw_params(6, 7, 20)]
    assert all(not torch.equal(one.person, params.person) for params in different)
    mirror = [draw_params(5, number, 3).mirror for number in range(400)]
    assert float(np.mean(np.array(mirror) < 0.5)) == pytest.approx(0.5, abs=0.08)


def test_ranks_get_their_share_of_the_joint_batchs_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = draw_params(5, 7, 9)
    parts = []
    for part in np.array_split(np.arange(9), 2):
        monkeypatch.setattr("classify.data.augment.local_share", lambda _, part=part: part)
        parts.append(draw_params(5, 7, 9))
    assert {part.mirror for part in parts} == {whole.mirror}
    assert torch.equal(torch.cat([part.person for part in parts]), whole.person)


def test_mirroring_the_panorama_does_not_change_spatial_features() -> None:
    rng = np.random.default_rng(0)
    width = 3760
    box_a, box_b = (
        np.stack([rng.uniform(-60, width, 500), rng.uniform(0, 300, 500), *rng.uniform(10, 150, (2, 500))], axis=1)
        for _ in range(2)
    )
    size, people = np.tile([width, 480], (500, 1)), rng.integers(2, 30, 500)

    def mirrored(box: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.stack([width - box[:, 0] - box[:, 2], *box[:, 1:].T], axis=1)

    expected = spatial_features(box_a, box_b, size, people)
    assert np.allclose(spatial_features(mirrored(box_a), mirrored(box_b), size, people), expected, rtol=1e-5, atol=1e-6)
    assert not np.allclose(spatial_features(mirrored(box_a), box_b, size, people), expected, atol=0.1)


@pytest.fixture(scope="module")
def pictures(images: Images) -> tuple[Tables, FrameCrops]:
    """The tables of the small data set, and the crops of their persons."""
    return images[0], FrameCrops(*images, 32)


def batches(pictures: tuple[Tables, FrameCrops], generator: torch.Generator | None, **settings: Any) -> list[PairBatch]:
    """The training batches of one epoch."""
    config = small_config(**settings)
    source = CropSource(*pictures, select_splits(pictures[0], config)["train"], config, device=CPU)
    return list(source.epoch(generator))


def test_only_training_batches_are_augmented(pictures: tuple[Tables, FrameCrops]) -> None:
    def same_crops(one: list[PairBatch], two: list[PairBatch]) -> bool:
        return all(torch.equal(a.persons, b.persons) for a, b in zip(one, two, strict=True))

    assert same_crops(batches(pictures, None, augment=True), batches(pictures, None))
    augmented, plain = (batches(pictures, torch.Generator().manual_seed(1), augment=flag) for flag in (True, False))
    assert not same_crops(augmented, plain)
    for one, two in zip(augmented, plain, strict=True):
        for name in ("a", "b", "spatial", "label"):
            assert torch.equal(getattr(one, name), getattr(two, name))
    generator = torch.Generator().manual_seed(1)
    assert same_crops(batches(pictures, generator, augment=True), augmented)
    assert not same_crops(batches(pictures, generator, augment=True), augmented)  # another epoch


@pytest.mark.parametrize("step", [2, 9, 14])
@pytest.mark.usefixtures("quick_baselines", "no_plots")
def test_an_interrupted_augmented_run_resumes_to_the_same_bytes(
    tmp_path: Path,
    step: int,
    pictures: tuple[Tables, FrameCrops],
    interrupt_at_step: Interrupt,
) -> None:
    def start(folder: Path, augmented: bool = True) -> list[dict[str, Any]]:
        torch.manual_seed(0)
        config = small_config(folder, epochs=5, augment=augmented)
        train_end_to_end(*pictures, TinyBackbone(), config, IDENTITY, resume=True)  # type: ignore[arg-type]
        return read_history(folder)

    uninterrupted = start(tmp_path / "whole")
    with interrupt_at_step(step), pytest.raises(KeyboardInterrupt):
        start(tmp_path / "cut")
    assert start(tmp_path / "cut") == uninterrupted
    states = [load_checkpoint(tmp_path / name / "last.pth", resume=True).model for name in ("whole", "cut")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert start(tmp_path / "plain", augmented=False) != uninterrupted


def test_every_epoch_draws_new_parameters(pictures: tuple[Tables, FrameCrops]) -> None:
    """One batch of all people: its persons are sorted, so the shuffled order of the pairs does not matter."""
    order = torch.Generator().manual_seed(0)
    (one,), (two,) = (batches(pictures, order, augment=True, batch_size=1000) for _ in range(2))
    assert one.persons.shape == two.persons.shape
    assert not torch.equal(one.persons, two.persons)


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_strength_scales_the_mirroring_probability(strength: float) -> None:
    crops = random_crops(1)
    for coin, mirrored in ((0.49 * strength, True), (0.51 * strength, False)):
        result = augment(crops, AugmentParams(coin, neutral(1)), strength)
        assert torch.equal(result, crops.flip(3) if mirrored else crops)
