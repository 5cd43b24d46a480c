"""The finetune command: it starts from a head-only run, and its backbone extracts a new store."""

import json
from pathlib import Path

import pytest
import torch

from classify.model.checkpoint import load_checkpoint, substate
from configs.splits import JRDB_SPLIT
from extract.backbones.resnet import Backbone
from tests.classify.conftest import Interrupt
from tests.factories import read_history
from tests.jobs import run_cli
from tests.jrdb_folder import write_folder

SCENES = (JRDB_SPLIT.train[0], JRDB_SPLIT.val[0], JRDB_SPLIT.test[0])
QUICK = ("--device", "cpu", "--num_workers", "0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a head-only run "head" and a fine-tuned run "tuned"."""
    folder = tmp_path_factory.mktemp("finetune")
    write_folder(folder / "data", SCENES, frames=3, people=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("classify.evaluate.baselines.ROUNDS", 1)
        head = ("--weights", "random", "--crop_size", "32", "--visual_dim", "8", "--freeze_backbone")
        assert run_cli("train", "--data_path", "data", *QUICK, *head, "--epochs", "3", "--checkpoint_dir", "head") == 0
        assert run_cli("finetune", "--from", "head", *QUICK, "--epochs", "2", "--checkpoint_dir", "tuned") == 0
    return folder


@pytest.fixture(autouse=True)
def in_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("classify.evaluate.baselines.ROUNDS", 1)


def test_the_first_evaluation_is_that_of_the_head_only_run(folder: Path) -> None:
    best = json.loads((folder / "head/final_results.json").read_text())
    first = read_history(folder / "tuned")[0]
    assert first["epoch"] == 0
    assert first["val_mpca"] == best["best_val_mpca"]
    assert first["val_accuracy"] == best["best_val_accuracy"]
    tuned = json.loads((folder / "tuned/final_results.json").read_text())
    assert tuned["best_val_mpca"] >= best["best_val_mpca"]
    assert tuned["mode"] == "end_to_end"


def test_r16_freezing_the_backbone_is_refused_with_the_right_command(capsys: pytest.CaptureFixture[str]) -> None:
    for start, weights in (("head", "random"), ("tuned", "tuned/best_model.pth")):
        assert run_cli("finetune", "--from", start, *QUICK, "--freeze_backbone", "--checkpoint_dir", "x") == 2
        command = f"`stage2 train --freeze_backbone --backbone resnet18 --weights {weights}`"
        assert command in capsys.readouterr().err
    assert not Path("x").exists()


def test_r21_a_fine_tuning_that_improves_nothing_says_so_at_its_end_and_when_its_weights_are_used(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ("finetune", "--from", "head", *QUICK, "--epochs", "1", "--lr", "0.03")  # so high that the loss grows
    assert run_cli(*command, "--checkpoint_dir", "untuned", "--json") == 0
    captured = capsys.readouterr()
    results = json.loads(captured.out)
    assert results["best_epoch"] == 0
    assert [text for text in results["warnings"] if text.startswith("the best epoch is 0: ")]
    assert "Warning: the best epoch is 0: " in captured.err.partition("Test, best model")[2]
    train = ("train", "--data_path", "data", *QUICK, "--crop_size", "32", "--freeze_backbone", "--epochs", "1")
    assert run_cli(*train, "--weights", "untuned", "--checkpoint_dir", "retrained") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Backbone weights: untuned"))
    head = load_checkpoint(Path("head/best_model.pth")).info.backbone["weights_sha256"]
    assert head[:16] in line
    assert "they are those that it started from" in line


def test_r21_a_fine_tuning_that_improves_has_no_such_warning() -> None:
    results = json.loads(Path("tuned/final_results.json").read_text())
    assert bool(results["best_epoch"]) != any("best epoch is 0" in text for text in results["warnings"])


def test_the_tuned_backbone_extracts_a_store_that_fits_the_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = ("--weights", "tuned/best_model.pth", "--crop_size", "32")
    assert (
        run_cli("extract", "--data_path", "data", *QUICK, *weights, "--dtype", "float32", "--store", "tuned.store") == 0
    )
    capsys.readouterr()
    assert run_cli("evaluate", "tuned", "--store", "tuned.store", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    results = json.loads(Path("tuned/final_results.json").read_text())
    assert figures["confusion_matrix"] == results["test_confusion_matrix"]
    options = ("--visual_dim", "8", "--epochs", "1", "--freeze_backbone", "--checkpoint_dir", "again")
    assert run_cli("train", "--data_path", "data", *QUICK, *weights, *options, "--store", "tuned.store") == 0


def test_the_store_of_the_tuned_backbone_is_found_by_its_weights(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights may be given as the run's folder; its store under stores/ is found without --store."""
    weights = ("--weights", "tuned", "--crop_size", "32")
    assert run_cli("extract", "--data_path", "data", *QUICK, *weights, "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert Path(made["path"]).parent == Path("stores")
    options = ("--visual_dim", "8", "--epochs", "1", "--freeze_backbone", "--checkpoint_dir", "found", "--json")
    assert run_cli("train", "--data_path", "data", *QUICK, *weights, *options) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["store_fingerprint"] == made["fingerprint"]
    assert results["seconds"]["extract"] < 1


def test_a_head_or_store_of_another_backbone_is_refused_by_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = Backbone("resnet18", freeze=True).resnet.state_dict()
    torch.save(state, folder / "other.pth")
    common = ("--data_path", "data", *QUICK, "--weights", "other.pth", "--crop_size", "32")
    assert run_cli("finetune", "--from", "head", *common, "--checkpoint_dir", "never") == 4
    assert "weights_sha256" in capsys.readouterr().err
    assert run_cli("extract", *common, "--store", "other.store") == 0
    assert run_cli("evaluate", "head", "--store", "other.store") == 4
    assert "weights_sha256" in capsys.readouterr().err
    assert not Path("never").exists()


def test_batchnorm_statistics_change_only_with_batchnorm_train(folder: Path) -> None:
    def buffers(run: str) -> dict[str, torch.Tensor]:
        state = substate(load_checkpoint(folder / run / "last.pth", resume=True).model, "backbone.")
        return {key: tensor for key, tensor in state.items() if "running" in key}

    options = ("--epochs", "1", "--batchnorm", "train", "--checkpoint_dir", "batchnorm", "--overwrite")
    assert run_cli("finetune", "--from", "head", *QUICK, *options) == 0
    start = Backbone("resnet18", freeze=True).state_dict()
    assert all(torch.equal(tensor, start[key]) for key, tensor in buffers("tuned").items())
    assert not any(torch.equal(tensor, start[key]) for key, tensor in buffers("batchnorm").items())


@pytest.mark.parametrize(
    "options", [(), ("--augment",), ("--freeze_blocks", "2"), ("--augment", "--freeze_blocks", "1")]
)
def test_an_interrupted_run_resumes_to_the_same_numbers(
    folder: Path, interrupt_after_saves: Interrupt, tmp_path: Path, options: tuple[str, ...]
) -> None:
    common = ("finetune", "--from", "head", *QUICK, "--epochs", "2", *options, "--checkpoint_dir")
    whole = tmp_path / "whole" if options else folder / "tuned"
    assert not options or run_cli(*common, whole) == 0
    command = (*common, tmp_path / "cut", "--resume", "auto")
    with interrupt_after_saves(2):  # epochs 0 and 1
        assert run_cli(*command) == 130
    assert run_cli(*command) == 0
    assert read_history(tmp_path / "cut") == read_history(whole)
    best = json.loads((folder / "head/final_results.json").read_text())["best_val_mpca"]
    assert read_history(whole)[0]["val_mpca"] == best
    assert bool(options) == (read_history(whole)[-1]["train_loss"] != read_history(folder / "tuned")[-1]["train_loss"])
    states = [load_checkpoint(folder / "last.pth", resume=True).model for folder in (tmp_path / "cut", whole)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_stored_crops_train_to_the_same_numbers_without_images(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = ("--data_path", "data", "--weights", "random", "--crop_size", "32", *QUICK)
    assert run_cli("extract", *recipe, "--crops", "--store", "pixels.store") == 0
    Path("data").rename("elsewhere")
    try:
        tune = ("finetune", "--from", "head", *QUICK, "--epochs", "2", "--store", "pixels.store")
        assert run_cli(*tune, "--checkpoint_dir", "stored") == 0
        assert run_cli(*tune, "--checkpoint_dir", "uncached", "--crop_cache", "0") == 0
        assert run_cli(*tune[:-2], "--checkpoint_dir", "never") != 0
    finally:
        Path("elsewhere").rename("data")
    states = [load_checkpoint(Path(name) / "best_model.pth").model for name in ("tuned", "stored", "uncached")]
    for name, state in zip(("stored", "uncached"), states[1:], strict=True):
        assert read_history(folder / name) == read_history(folder / "tuned")
        assert all(torch.equal(state[key], states[0][key]) for key in state)
    capsys.readouterr()
    wide = ("train", "--weights", "random", "--crop_size", "48", *QUICK, "--store", "pixels.store")
    assert run_cli(*wide, "--checkpoint_dir", "never") == 4
    assert "crop_size 32" in capsys.readouterr().err
    assert run_cli("extract", *recipe, "--store", "plain.store") == 0
    assert run_cli("finetune", "--from", "head", *QUICK, "--store", "plain.store", "--checkpoint_dir", "never") == 4
    assert "--crops" in capsys.readouterr().err
    assert not Path("never").exists()
