"""Small whole runs in both modes: learning, determinism, early stopping, resuming and starting from a run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from classify.data.cached import CachedFeatures, CachedSource
from classify.data.crops import CropSource, FrameCrops
from classify.data.selection import select_splits
from classify.inference.finished_run import evaluate_crops, evaluate_features
from classify.model.checkpoint import build_model, load_checkpoint
from classify.train.end_to_end import train_end_to_end
from classify.train.run import Run
from configs.errors import CheckpointError, ConfigError, MismatchError
from configs.resnet_stage2_config import FUSIONS, ResNetStage2Config
from extract.images.crops import crop_people
from extract.images.read import read_frame
from store.tables import Features, Tables
from tests.classify.conftest import Interrupt
from tests.factories import (
    IDENTITY,
    TinyBackbone,
    make_features,
    make_tables,
    read_history,
    small_config,
    train_head,
    with_labels,
    write_images,
)

pytestmark = pytest.mark.usefixtures("quick_baselines", "no_plots")


def cached(folder: Path, features: Features | None = None, **settings: Any) -> Run:
    features = features or make_features(make_tables())
    return train_head(features, small_config(folder, **settings))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tables, list[Path]]:
    tables = make_tables(frames=3, people=5, pairs=4)
    return tables, write_images(tables, tmp_path_factory.mktemp("images"))


def with_crops(tables: Tables, paths: list[Path]) -> tuple[Tables, FrameCrops]:
    return tables, FrameCrops(tables, paths, 32)


def features_of(backbone: nn.Module, tables: Tables, paths: list[Path]) -> Features:
    """The backbone's features, extracted one frame after another."""
    rows = []
    with torch.no_grad():
        for frame, path in enumerate(paths):
            boxes = tables.box[tables.frame_offset[frame] : tables.frame_offset[frame + 1]]
            rows.append(backbone.eval()(crop_people(read_frame(path), boxes, 32)).numpy())
    return Features(tables, np.concatenate(rows), None, "f")


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_learns(tmp_path: Path, fusion: str) -> None:
    run = cached(tmp_path / "r", fusion_strategy=fusion, epochs=12, learning_rate=1e-2)
    assert run.results["test_mpca"] > 0.7 > run.results["baselines"]["majority"]["mpca"] + 0.3


@pytest.mark.parametrize("balance", ["none", "loss", "sampler"])
def test_every_balance_trains(tmp_path: Path, balance: str) -> None:
    run = cached(tmp_path / "r", balance=balance)
    weight = load_checkpoint(run.folder / "best_model.pth").info.class_weight
    assert (len(set(weight)) > 1) == (balance == "loss")


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_any_number_of_classes_may_occur_in_val_and_test(tmp_path: Path, classes: int) -> None:
    tables = make_tables()
    labels = np.where(tables.frame_scene[tables.pair_frame] < 2, tables.label, tables.label % classes)
    tables = with_labels(tables, labels, tables.label_sets)
    results = cached(tmp_path / "r", make_features(tables)).results
    assert results["test_classes_present"] == classes
    assert sum(share is not None for share in results["test_per_class_accuracy"]) == classes


def test_the_same_command_gives_the_same_numbers(tmp_path: Path) -> None:
    one, two = cached(tmp_path / "a"), cached(tmp_path / "b")
    other = cached(tmp_path / "c", seed=1)
    assert read_history(one.folder) == read_history(two.folder)
    assert read_history(one.folder) != read_history(other.folder)
    assert (one.folder / "best_model.pth").read_bytes() != (other.folder / "best_model.pth").read_bytes()
    states = [load_checkpoint(run.folder / "best_model.pth").model for run in (one, two)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_float16_features_change_little(tmp_path: Path) -> None:
    tables = make_tables()
    runs = [cached(tmp_path / name, make_features(tables, dtype=name)) for name in ("float32", "float16")]
    assert runs[0].results["best_val_mpca"] == pytest.approx(runs[1].results["best_val_mpca"], abs=0.05)


def test_training_stops_early(tmp_path: Path) -> None:
    run = cached(tmp_path / "r", epochs=60, patience=2, learning_rate=1e-9)
    assert run.results["epochs_run"] < 10


@pytest.mark.parametrize("mode", ["cached", "end_to_end"])
def test_an_interrupted_run_resumes_to_the_same_numbers(
    tmp_path: Path,
    mode: str,
    pictures: tuple[Tables, list[Path]],
    interrupt_after_saves: Interrupt,
    interrupt_at_step: Interrupt,
) -> None:
    def start(folder: Path, resume: bool = False) -> Run:
        config = small_config(folder, epochs=4)
        if mode == "cached":
            return train_head(make_features(make_tables()), config, resume=resume)
        torch.manual_seed(0)
        return train_end_to_end(*with_crops(*pictures), TinyBackbone(), config, IDENTITY, resume=resume)  # type: ignore[arg-type]

    whole = start(tmp_path / "whole")
    for resume, interrupt in ((False, interrupt_after_saves(2)), (True, interrupt_at_step(1))):
        with interrupt, pytest.raises(KeyboardInterrupt) as stop:
            start(tmp_path / "cut", resume=resume)
        assert stop.value.__notes__[0].startswith("after epoch 2; run again with ")
    resumed = start(tmp_path / "cut", resume=True)
    assert read_history(resumed.folder) == read_history(whole.folder)
    states = [load_checkpoint(run.folder / "best_model.pth").model for run in (whole, resumed)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("mode", ["cached", "end_to_end"])
@pytest.mark.parametrize("step", [1, 2, 9, 14])
def test_a_run_interrupted_at_any_step_resumes_to_the_same_bytes(
    tmp_path: Path, mode: str, step: int, pictures: tuple[Tables, list[Path]], interrupt_at_step: Interrupt
) -> None:
    def start(folder: Path) -> Run:
        config = small_config(folder, epochs=5)
        if mode == "cached":
            return train_head(make_features(make_tables(frames=2)), config, resume=True)
        torch.manual_seed(0)
        return train_end_to_end(*with_crops(*pictures), TinyBackbone(), config, IDENTITY, resume=True)  # type: ignore[arg-type]

    whole = start(tmp_path / "whole")
    with interrupt_at_step(step), pytest.raises(KeyboardInterrupt):
        start(tmp_path / "cut")
    resumed = start(tmp_path / "cut")
    assert read_history(resumed.folder) == read_history(whole.folder)
    states = [load_checkpoint(run.folder / "best_model.pth").model for run in (whole, resumed)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_cached_logits_equal_those_on_the_frozen_backbone(tmp_path: Path, pictures: tuple[Tables, list[Path]]) -> None:
    backbone = TinyBackbone(freeze=True)
    features = features_of(backbone, *pictures)
    run = train_head(features, small_config(tmp_path / "r"))
    checkpoint = load_checkpoint(run.folder / "best_model.pth")
    split = select_splits(pictures[0], small_config())["test"]
    device = torch.device("cpu")
    sources = (
        CachedSource(pictures[0], CachedFeatures.load(features, device), split, 8),
        CropSource(*with_crops(*pictures), split, small_config(), device=device),
    )
    models = (build_model(checkpoint, nn.Identity()), build_model(checkpoint, backbone))
    with torch.no_grad():
        logits = [torch.cat([model(b) for b in source.epoch()]) for model, source in zip(models, sources, strict=True)]
    assert logits[0] == pytest.approx(logits[1], rel=1e-5, abs=1e-6)
    figures = (
        evaluate_features(checkpoint, features, IDENTITY, split="test", device=device),
        evaluate_crops(checkpoint, *pictures, backbone, split="test", device=device),  # type: ignore[arg-type]
    )
    assert figures[0]["confusion_matrix"] == figures[1]["confusion_matrix"] == run.results["test_confusion_matrix"]


def test_fine_tuning_starts_from_the_evaluation_of_the_head(
    tmp_path: Path, pictures: tuple[Tables, list[Path]]
) -> None:
    backbone = TinyBackbone()
    head = train_head(features_of(backbone, *pictures), small_config(tmp_path / "head"))
    start = load_checkpoint(head.folder / "best_model.pth")
    tuned = train_end_to_end(*with_crops(*pictures), backbone, small_config(tmp_path / "tuned"), IDENTITY, start=start)  # type: ignore[arg-type]
    first = read_history(tuned.folder)[0]
    best = max(read_history(head.folder), key=lambda record: (record["val_mpca"], -record["val_loss"]))
    assert first["epoch"] == 0
    assert first["val_mpca"] == best["val_mpca"]
    assert first["val_loss"] == pytest.approx(best["val_loss"], rel=1e-5)
    assert tuned.results["best_val_mpca"] >= head.results["best_val_mpca"]


def test_end_to_end_changes_every_parameter_and_a_frozen_backbone_none(
    tmp_path: Path, pictures: tuple[Tables, list[Path]]
) -> None:
    for frozen in (False, True):
        torch.manual_seed(0)
        backbone = TinyBackbone(freeze=frozen)
        before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
        train_end_to_end(*with_crops(*pictures), backbone, small_config(tmp_path / str(frozen)), IDENTITY)  # type: ignore[arg-type]
        after = backbone.state_dict()
        moved = {key for key in before if not torch.equal(before[key], after[key])}
        if frozen:
            assert not moved
        else:
            assert {name for name, _ in backbone.named_parameters()} <= moved


def test_a_batch_of_crops_holds_each_person_once(pictures: tuple[Tables, list[Path]]) -> None:
    tables, paths = pictures
    split = select_splits(tables, small_config())["train"]
    source = CropSource(
        *with_crops(tables, paths), split, replace(small_config(), batch_size=24), device=torch.device("cpu")
    )
    batch = next(source.epoch())
    assert len(batch.persons) == len(np.unique(tables.pair[split.pairs]))
    rows = np.unique(tables.pair[split.pairs])
    pair = np.sort(tables.pair[split.pairs], axis=1)
    assert np.array_equal(rows[batch.a.numpy()], pair[:, 0])
    assert np.array_equal(rows[batch.b.numpy()], pair[:, 1])


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_no_batch(pictures: tuple[Tables, list[Path]], workers: int) -> None:
    def batches(config: ResNetStage2Config) -> list[Any]:
        split = select_splits(pictures[0], config)["train"]
        source = CropSource(*with_crops(*pictures), split, config, device=torch.device("cpu"))
        return list(source.epoch(torch.Generator().manual_seed(3)))

    plain, ahead = batches(small_config()), batches(small_config(num_workers=workers))
    for one, other in zip(plain, ahead, strict=True):
        assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in one.__slots__)


def test_the_fused_step_trains_as_autograd_does(tmp_path: Path) -> None:
    """Without dropout, whose random numbers differ."""
    features = make_features(make_tables())
    settings = {"dropout": 0.0, "epochs": 4}
    fused, plain = (
        train_head(features, small_config(tmp_path / step, **settings), step=step) for step in ("fused", "autograd")
    )
    for one, other in zip(read_history(fused.folder), read_history(plain.folder), strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-3)


def test_resuming_with_the_other_step_is_refused(tmp_path: Path) -> None:
    features = make_features(make_tables())
    train_head(features, small_config(tmp_path / "r", epochs=2))
    with pytest.raises(CheckpointError, match="--step"):
        train_head(features, small_config(tmp_path / "r", epochs=2), step="autograd", resume=True)


def test_features_of_another_backbone_are_refused_by_name(tmp_path: Path) -> None:
    features = make_features(make_tables())
    run = train_head(features, small_config(tmp_path / "r"))
    with pytest.raises(MismatchError, match="weights_sha256"):
        evaluate_features(
            load_checkpoint(run.folder / "best_model.pth"),
            features,
            IDENTITY | {"weights_sha256": "1"},
            split="test",
            device=torch.device("cpu"),
        )


def test_a_run_is_replaced_only_with_overwrite(tmp_path: Path) -> None:
    cached(tmp_path / "r")
    with pytest.raises(ConfigError, match="--overwrite"):
        cached(tmp_path / "r")
    train_head(make_features(make_tables()), small_config(tmp_path / "r"), overwrite=True)


def test_the_results_have_the_keys_of_the_guide(tmp_path: Path) -> None:
    results = json.loads((cached(tmp_path / "r").folder / "final_results.json").read_text())
    assert {"test_accuracy", "test_mpca", "best_val_accuracy", "best_val_mpca", "config"} <= set(results)
    names = {"backbone_name", "visual_feature_dim", "fusion_strategy", "learning_rate", "batch_size"}
    assert names <= set(results["config"])
    assert set(results["baselines"]) == {"majority", "spatial_only", "knn"}
    assert {"mode", "store_fingerprint", "epochs_run", "seconds", "versions"} <= set(results)
    assert {"extract", "train", "evaluate"} <= set(results["seconds"])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, share: float) -> None:
    path = cached(tmp_path / "r", epochs=1).folder / "best_model.pth"
    data = bytearray(path.read_bytes())
    (tmp_path / "cut.pth").write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "cut.pth")
    data[int(share * len(data))] ^= 4
    (tmp_path / "flipped.pth").write_bytes(data)
    try:
        state = load_checkpoint(tmp_path / "flipped.pth").model
    except CheckpointError:
        return
    intact = load_checkpoint(path).model  # the flipped bit is in padding that nothing reads
    assert all(torch.equal(state[key], intact[key]) for key in intact)
