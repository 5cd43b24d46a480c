"""A store that does not fit in memory: the same samples as in memory, one window at a time."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from classify.data.batches import PairBatch
from classify.data.cached import CachedFeatures
from classify.data.selection import Split
from classify.data.streamed import StreamedFeatures, open_features
from classify.inference.finished_run import evaluate_on_store
from classify.pipeline import train
from configs.errors import IntegrityError
from configs.extraction_config import ExtractionConfig
from configs.train_options import TrainOptions
from extract.backbones.weights import load_backbone
from extract.job import extract_with
from extract.units.plan import UnitSize
from store.open import read_complete_manifest
from store.reader import StoredFeatures, load_store, open_stored_features
from store.tables import Features
from tests.factories import small_config
from tests.jrdb_folder import write_folder

CPU = torch.device("cpu")
SCENES = ("a", "b", "c", "d")


@pytest.fixture(scope="module", params=[1, 2], ids=["one view", "two views"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of many small units."""
    folder = tmp_path_factory.mktemp("streamed")
    data = write_folder(folder / "data", SCENES, frames=8, people=5)
    config = ExtractionConfig(
        data_path=str(data),
        store=str(folder / "s"),
        weights="random",
        crop_size=32,
        device="cpu",
        views=request.param,
        num_workers=0,
    )
    extract_with(config, load_backbone("resnet18", "random"), unit_size=UnitSize(crops=10))
    return folder / "s"


def all_pairs(features: Features) -> Split:
    count = len(features.tables.pair)
    return Split("train", np.arange(count), np.arange(count) % 3)


def samples(batches: list[PairBatch]) -> list[tuple[bytes, ...]]:
    """The bytes of each sample: both persons' features, spatial features and label."""
    return [
        tuple(part.numpy().tobytes() for part in (b.persons[b.a[i]], b.persons[b.b[i]], b.spatial[i], b.label[i]))
        for b in batches
        for i in range(len(b.label))
    ]


@pytest.mark.parametrize("window", [1, 3, 1000])
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_an_epoch_has_each_sample_once_in_full_batches(path: Path, window: int, batch_size: int) -> None:
    features, stored = load_store(path), open_stored_features(path)
    split = all_pairs(features)
    source = StreamedFeatures(stored, CPU, window).source(stored.tables, split, batch_size)
    batches = list(source.epoch(torch.Generator().manual_seed(1)))
    sizes = [len(batch.label) for batch in batches]
    assert sizes[:-1] == [batch_size] * (source.batches - 1)
    assert sum(sizes) == source.samples == len(split.pairs)
    assert all(torch.equal(torch.cat((b.a, b.b)), torch.arange(2 * len(b.label))) for b in batches)
    spatial = sorted(row.tobytes() for row in features.tables.spatial[split.pairs])
    assert sorted(row.numpy().tobytes() for b in batches for row in b.spatial) == spatial
    if features.visual_flipped is None:
        cached = CachedFeatures.load(features, CPU).source(features.tables, split, batch_size)
        assert sorted(samples(batches)) == sorted(samples(list(cached.epoch())))


def test_without_shuffling_it_equals_the_cached_source(path: Path) -> None:
    features, stored = load_store(path), open_stored_features(path)
    split = all_pairs(features)
    streamed = StreamedFeatures(stored, CPU, 2).source(stored.tables, split, 9)
    cached = CachedFeatures.load(features, CPU).source(features.tables, split, 9)
    assert samples(list(streamed.epoch())) == samples(list(cached.epoch()))


def test_windows_mix_their_units_and_epochs_differ(path: Path) -> None:
    features, stored = load_store(path), open_stored_features(path)
    split = all_pairs(features)
    source = StreamedFeatures(stored, CPU, 4).source(stored.tables, split, 8)
    generator = torch.Generator().manual_seed(1)
    orders = [[row.numpy().tobytes() for b in source.epoch(generator) for row in b.spatial] for _ in range(2)]
    assert orders[0] != orders[1]
    unit_of = {
        stored.tables.spatial[pair].tobytes(): int(np.searchsorted(stored.starts, stored.tables.pair[pair, 0], "right"))
        for pair in split.pairs
    }
    units = [unit_of[row] for row in orders[0]]
    changes = sum(unit != following for unit, following in itertools.pairwise(units))
    assert changes > len(units) / 2  # in file order there would be one change per unit
    repeated = source.epoch(torch.Generator().manual_seed(1))
    assert [row.numpy().tobytes() for b in repeated for row in b.spatial] == orders[0]


def test_a_balanced_epoch_draws_as_often_as_there_are_samples(path: Path) -> None:
    features, stored = load_store(path), open_stored_features(path)
    split = all_pairs(features)
    imbalanced = Split("train", split.pairs, np.where(np.arange(len(split.pairs)) < 3, 1, 0))
    source = StreamedFeatures(stored, CPU, 3).source(stored.tables, imbalanced, 8, balanced=True)
    labels = torch.cat([b.label for b in source.epoch(torch.Generator().manual_seed(0))])
    assert len(labels) == source.samples
    assert 0.3 < labels.float().mean() < 0.7


def test_chunks_are_the_features_of_the_persons(path: Path) -> None:
    features, stored = load_store(path), open_stored_features(path)
    persons = np.unique(np.random.default_rng(0).integers(0, len(features.visual), 60))
    for source in (StreamedFeatures(stored, CPU, 1), CachedFeatures.load(features, CPU)):
        assert torch.equal(torch.cat(list(source.chunks(persons))), torch.from_numpy(features.visual[persons]))


def test_features_that_fit_are_loaded_into_memory(path: Path) -> None:
    assert isinstance(open_features(path, CPU, 0.0), Features)
    assert isinstance(open_features(path, CPU, 1e-6), StoredFeatures)
    assert StreamedFeatures.within(open_stored_features(path), CPU, 1.0).window == 1


def test_0_gib_are_half_of_the_physical_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(unit.bytes for unit in read_complete_manifest(path).units)
    for pages, kind in ((2 * size, Features), (2 * size - 1, StoredFeatures)):
        monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": pages}.__getitem__)
        features = open_features(path, CPU, 0.0)
        monkeypatch.undo()
        assert isinstance(features, kind)


def test_a_shard_damaged_between_epochs_raises(path: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(path, tmp_path / "copy")
    stored = open_stored_features(copy)
    split = all_pairs(load_store(copy))
    source = StreamedFeatures(stored, CPU, 1).source(stored.tables, split, 8)
    list(source.epoch())
    shard = copy / "shards" / stored.manifest.units[3].shard
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(IntegrityError, match=shard.name):
        list(source.epoch())


def test_a_streamed_run_trains_evaluates_and_repeats(path: Path, tmp_path: Path) -> None:
    settings = {"weights": "random", "crop_size": 32, "feature_memory": 1e-6, "freeze_backbone": True, "epochs": 2}
    config = small_config(tmp_path / "run", data_path=str(path.parent / "data"), **settings)
    run = train(config, TrainOptions(store=str(path)))
    metrics = evaluate_on_store(run.folder, path, "test", "cpu")
    assert metrics["confusion_matrix"] == run.results["test_confusion_matrix"]
    repeated = train(
        small_config(tmp_path / "repeated", data_path=config.data_path, **settings), TrainOptions(store=str(path))
    )
    lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (run.folder, repeated.folder)]
    assert [json.loads(line)["train_loss"] for line in lines[0]] == [
        json.loads(line)["train_loss"] for line in lines[1]
    ]


def test_r16_evaluation_streams_through_the_memory_of_the_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"weights": "random", "crop_size": 32, "feature_memory": 1e-6, "freeze_backbone": True, "epochs": 1}
    config = small_config(tmp_path / "run", data_path=str(path.parent / "data"), **settings)
    run = train(config, TrainOptions(store=str(path)))
    budgets = []
    within = StreamedFeatures.within

    def record(stored: StoredFeatures, device: torch.device, memory: float) -> StreamedFeatures:
        budgets.append(memory)
        return within(stored, device, memory)

    monkeypatch.setattr(StreamedFeatures, "within", record)
    evaluate_on_store(run.folder, path, "test", "cpu")
    assert budgets == [1e-6 * 2**30]
