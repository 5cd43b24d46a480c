"""Commands on a run that was trained on int8 features say what they forward with and how far the logits are apart."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from classify.inference.precision_notice import precision_notice
from classify.model.checkpoint import build_model, load_checkpoint, save_checkpoint
from classify.run_folder import RunFolder
from configs.errors import CheckpointError
from store.open import read_manifest
from tests.jobs import QUICK, SCENES, run_cli
from tests.jrdb_folder import write_folder

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytest.importorskip("onnx", reason="the extra onnx is not installed")
NOTICE = "The run was trained on int8 features; here they are float32."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, an int8 store of it, and a run that was trained on the store."""
    root = tmp_path_factory.mktemp("int8")
    data = write_folder(root / "data", SCENES, frames=3, people=6)
    size = ("--weights", "random", "--crop_size", "32", "--device", "cpu")
    assert run_cli("extract", "--data_path", data, "--store", root / "a.store", "--precision", "int8", *size) == 0
    options = ("--data_path", data, *QUICK, "--epochs", "2", "--freeze_backbone", "--store", root / "a.store")
    assert run_cli("train", *options, "--checkpoint_dir", root / "run") == 0
    return root


def test_the_checkpoint_knows_the_ranges_and_the_record_of_its_features(folder: Path) -> None:
    manifest = read_manifest(folder / "a.store")
    for file in ("best_model.pth", "last.pth"):
        features = load_checkpoint(folder / "run" / file, resume=file == "last.pth").info.features
        assert features["precision"] == "int8"
        assert features["activation_ranges"] == manifest.recipe.activation_ranges
        assert manifest.int8 is not None and features["int8"] == manifest.int8.to_dict()


def test_the_logits_in_the_notice_are_those_of_the_head(folder: Path) -> None:
    checkpoint = load_checkpoint(RunFolder(folder / "run").best_model)
    record = read_manifest(folder / "a.store").int8
    assert record is not None
    head = build_model(checkpoint, torch.nn.Identity()).head
    differences, changed = [], 0
    for a in range(len(record.samples()[0])):
        for b in range(a):
            # the spatial features that standardisation maps to 0
            spatial = torch.from_numpy(np.divide(-head.spatial_shift.numpy(), head.spatial_scale.numpy()))[None]
            pair = torch.tensor([0]), torch.tensor([1])
            with torch.no_grad():
                one, two = (head(torch.from_numpy(rows[[a, b]]), *pair, spatial) for rows in record.samples())
            differences.append((one - two).abs().mean())
            changed += int(one.argmax() != two.argmax())
    text = precision_notice(checkpoint, "float32")
    found = re.search(r"Logits of (\d+) pairs of them: apart by (\S+) on average .*; (\d+) of the", text)
    assert found is not None
    assert int(found[1]) == len(differences) and int(found[3]) == changed
    assert float(found[2]) == pytest.approx(float(torch.stack(differences).mean()), rel=0.06)  # two digits are printed
    assert text.startswith(f"{NOTICE} int8 features {record}.")


def test_commands_that_forward_in_float32_say_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, data = folder / "run", ("--data_path", folder / "data")
    for command in (
        ("evaluate", run, *data, "--device", "cpu"),
        ("predict", run, *data, "--device", "cpu", "--out", folder / "predictions.json"),
        ("export", run, "--format", "pt2", "--out", folder / "model.pt2"),
        ("finetune", "--from", run, *data, "--epochs", "1", "--device", "cpu", "--num_workers", "0", "--checkpoint_dir",
         folder / "tuned"),
    ):  # fmt: skip
        capsys.readouterr()
        assert run_cli(*command) == 0
        printed = capsys.readouterr()
        assert (printed.out + printed.err).count(NOTICE) == 1, command
    assert load_checkpoint(RunFolder(folder / "tuned").best_model).info.features == {}


def test_evaluation_on_the_runs_own_features_needs_no_notice(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("evaluate", folder / "run", "--store", folder / "a.store") == 0
    assert "int8" not in capsys.readouterr().err


def test_a_damaged_record_in_a_checkpoint_is_refused(folder: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(RunFolder(folder / "run").best_model)
    record = checkpoint.info.features["int8"]
    for damage in (record | {"crops": 1}, record | {"int8": record["int8"][:-8]}, {}):
        checkpoint.info.features["int8"] = damage
        model = build_model(checkpoint, torch.nn.Identity())
        save_checkpoint(tmp_path / "best_model.pth", checkpoint.info, model, {"epoch": 1})
        with pytest.raises(CheckpointError, match="int8 cannot be used"):
            load_checkpoint(tmp_path / "best_model.pth")
