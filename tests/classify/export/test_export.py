"""Exported files, loaded by other libraries, have the model's output; a file that differs is never written."""

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from classify.export.classifier import ClassifierInputs, PairClassifier
from classify.export.export import TEST_SIZES, TOLERANCE, Serialize, export, max_difference, random_inputs
from classify.export.formats import read_safetensors, serialize
from classify.model.checkpoint import CACHED, END_TO_END
from classify.model.head import Stage2Model
from classify.run_folder import RunFolder
from configs.errors import CheckpointError, ConfigError, ExportError, MismatchError
from configs.resnet_stage2_config import ResNetStage2Config
from extract.annotations.jrdb import LABELS, image_path
from extract.annotations.spatial import spatial_features
from extract.backbones.weights import load_backbone, load_resnet
from extract.images.crops import crop_people
from extract.images.read import read_frame
from tests.classify.export.exported import exported_output, needs
from tests.factories import make_random_run
from tests.jobs import QUICK, SCENES, run_cli
from tests.jrdb_folder import write_folder

FORMATS = ("onnx", "pt2", "safetensors", "torchscript")
CROP_SIZE = 32


def expected_output(model: Stage2Model, inputs: ClassifierInputs) -> Tensor:
    """Computed step by step: backbone, spatial features by numpy, head, softmax."""
    boxes, a, b = inputs.boxes.numpy(), inputs.a.numpy(), inputs.b.numpy()
    spatial = spatial_features(boxes[a], boxes[b], inputs.size.numpy(), inputs.people.numpy())
    with torch.no_grad():
        return model.head(model.backbone(inputs.crops), inputs.a, inputs.b, torch.from_numpy(spatial)).softmax(1)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        (CACHED, {"fusion_strategy": "concat"}),
        (CACHED, {"fusion_strategy": "bilinear", "use_geometric": False}),
        (CACHED, {"backbone_name": "hog", "fusion_strategy": "concat"}),
        (END_TO_END, {"fusion_strategy": "add", "use_scene_context": False}),
    ],
    ids=["concat", "bilinear", "hog", "end_to_end add"],
)
def test_exported_output_equals_the_models(tmp_path: Path, kind: str, mode: str, settings: dict[str, Any]) -> None:
    needs(kind)
    folder, model = make_random_run(tmp_path, mode, **settings)
    out = tmp_path / "deep" / "model.bin"
    summary = export(folder, out, kind)
    assert summary["bytes"] == out.stat().st_size
    assert 0 <= summary["difference"] <= TOLERANCE
    for seed, (persons, pairs) in enumerate(((2, 1), (3, 7), (12, 40), (2, 2)), start=100):
        inputs = random_inputs(persons, pairs, CROP_SIZE, seed)
        torch.testing.assert_close(
            exported_output(kind, out, inputs), expected_output(model, inputs), atol=1e-5, rtol=1e-4
        )
    output = exported_output(kind, out, inputs)
    assert torch.equal(output, exported_output(kind, out, inputs._replace(a=inputs.b, b=inputs.a)))
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("kind", FORMATS)
def test_exported_files_have_metadata(tmp_path: Path, kind: str) -> None:
    needs(kind)
    folder, _ = make_random_run(tmp_path, END_TO_END)
    out = tmp_path / "model.bin"
    export(folder, out, kind)
    metadata = {name: json.loads(text) for name, text in read_metadata(kind, out).items()}
    assert metadata["classes"] == ["Walking Together", "Standing Together", "Sitting Together"]
    assert metadata["crop_size"] == CROP_SIZE
    assert metadata["recipe"]["weights_sha256"] == load_backbone("resnet18", str(RunFolder(folder).best_model)).sha256
    assert set(metadata["inputs"]) == set(ClassifierInputs._fields)
    assert not {"data_path", "checkpoint_dir"} & set(metadata["config"])


def read_metadata(kind: str, path: Path) -> dict[str, str]:
    if kind == "onnx":
        import onnx

        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    if kind in ("pt2", "torchscript"):
        extra: dict[str, Any] = {"stage2.json": ""}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == "pt2":
                torch.export.load(path, extra_files=extra)
            else:
                torch.jit.load(path, _extra_files=extra)
        return dict(json.loads(extra["stage2.json"]))
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return dict(file.metadata())


def test_exported_output_equals_predict_on_a_trained_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("onnx")
    monkeypatch.chdir(tmp_path)
    data = write_folder(tmp_path / "data", SCENES, frames=2, people=6)
    options = ("--data_path", data, *QUICK, "--epochs", "1", "--freeze_backbone", "--checkpoint_dir", "run")
    assert run_cli("train", *options) == 0
    assert run_cli("predict", "run", "--data_path", data, "--out", "predictions.json", "--pairs", "all") == 0
    capsys.readouterr()
    assert run_cli("export", "run", "--format", "onnx", "--out", "model.onnx", "--json") == 0
    assert json.loads(capsys.readouterr().out)["format"] == "onnx"
    frame = next(iter(json.loads((data / LABELS / f"{SCENES[0]}.json").read_text())["labels"]))
    people = json.loads(Path("predictions.json").read_text())["scenes"][SCENES[0]]["labels"][frame]
    image = read_frame(image_path(data, SCENES[0], frame))
    boxes = np.array([entry["box"] for entry in people], np.float64)
    row = {entry["label_id"]: index for index, entry in enumerate(people)}
    pairs = [(row[one["label_id"]], row[two["pair"]]) for one in people for two in one["H-interaction"]]
    a, b = torch.tensor(pairs).T
    inputs = ClassifierInputs(
        crop_people(image, boxes, CROP_SIZE).contiguous(),
        torch.from_numpy(boxes).float(),
        torch.tensor([[image.shape[2], image.shape[1]]] * len(pairs)),
        torch.full((len(pairs),), len(people)),
        a,
        b,
    )
    predicted = [list(two["probabilities"].values()) for one in people for two in one["H-interaction"]]
    assert len(predicted) == 15
    torch.testing.assert_close(
        exported_output("onnx", Path("model.onnx"), inputs), torch.tensor(predicted), atol=1e-5, rtol=1e-4
    )


def serialize_changed(change: Callable[[PairClassifier], None]) -> Serialize:
    """A `serialize` that writes a classifier to which `change` has been applied; the model itself is unchanged."""

    def write(kind: str, model: PairClassifier, *rest: Any) -> bytes:
        state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        change(model)
        try:
            return serialize(kind, model, *rest)
        finally:
            model.load_state_dict(state)

    return write


def scale_one_convolution(model: PairClassifier) -> None:
    model.backbone.get_parameter("resnet.layer3.0.conv1.weight").mul_(1.01)


def change_one_bias(model: PairClassifier) -> None:
    model.head.classify.bias[1].add_(1e-3)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("onnx", change_one_bias),
        ("pt2", scale_one_convolution),
        ("safetensors", scale_one_convolution),
        ("torchscript", change_one_bias),
    ],
)
def test_a_file_with_different_output_is_refused(
    tmp_path: Path, kind: str, change: Callable[[PairClassifier], None]
) -> None:
    needs(kind)
    folder, _ = make_random_run(tmp_path)
    with pytest.raises(ExportError, match="nothing was written"):
        export(folder, tmp_path / "out" / "model.bin", kind, serialize=serialize_changed(change))
    assert [path.name for path in tmp_path.rglob("*")] == [RunFolder(folder).best_model.name]


def test_safetensors_are_compared_bit_for_bit(tmp_path: Path) -> None:
    needs("safetensors")
    folder, _ = make_random_run(tmp_path)

    def change(model: PairClassifier) -> None:  # one bit, too small to change the probabilities
        model.backbone.get_buffer("resnet.bn1.running_var").view(torch.int32)[5].bitwise_xor_(1)

    with pytest.raises(ExportError, match="running_var is not the model's"):
        export(folder, tmp_path / "model.bin", "safetensors", serialize=serialize_changed(change))


class SwappedSizes(PairClassifier):
    """Confuses width and height of the frame in the spatial features."""

    def forward(self, crops: Tensor, boxes: Tensor, size: Tensor, people: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(crops, boxes, size.flip(1), people, a, b)


def test_different_spatial_features_are_refused(tmp_path: Path) -> None:
    folder, _ = make_random_run(tmp_path)

    def serialize_swapped(kind: str, model: PairClassifier, *rest: Any) -> bytes:
        return serialize(kind, SwappedSizes(model.backbone, model.head), *rest)

    with pytest.raises(ExportError):
        export(folder, tmp_path / "model.bin", "pt2", serialize=serialize_swapped)


def test_test_inputs_would_reveal_a_fixed_number_of_people_or_pairs() -> None:
    assert len({persons for persons, _ in TEST_SIZES}) > 2
    assert len({pairs for _, pairs in TEST_SIZES}) > 2
    assert 1 in {pairs for _, pairs in TEST_SIZES}


def test_max_difference_sees_differences_of_certain_probabilities() -> None:
    certain = torch.tensor([[40.0, 0.0, -3.0]]).softmax(1)
    changed = torch.tensor([[40.0, 0.1, -3.0]]).softmax(1)
    assert float((certain - changed).abs().max()) < 1e-7
    assert max_difference(changed, certain) > 1e-3
    assert max_difference(certain, certain) == 0
    assert max_difference(certain[:, :2], certain) == float("inf")
    assert not max_difference(certain * float("nan"), certain) <= TOLERANCE


@pytest.mark.parametrize(
    ("kind", "package"),
    [("onnx", "onnx"), ("onnx", "onnxscript"), ("onnx", "onnxruntime"), ("safetensors", "safetensors")],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, kind: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if package in ("onnxscript", "onnxruntime"):
        needs("onnx")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"needs {package}.*stage2\[{kind}\]"):
        export(tmp_path, tmp_path / "model.bin", kind)


def test_runs_that_cannot_be_loaded_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        export(tmp_path, tmp_path / "model.bin", "pt2")
    folder, _ = make_random_run(tmp_path)
    state = load_resnet("resnet18", "random", freeze=True).resnet.state_dict()
    torch.save(state | {"bn1.bias": state["bn1.bias"] + 1}, tmp_path / "other.pth")
    with pytest.raises(MismatchError, match="weights_sha256"):
        export(folder, tmp_path / "model.bin", "pt2", str(tmp_path / "other.pth"))
    assert not (tmp_path / "model.bin").exists()


def test_other_safetensors_files_are_refused(tmp_path: Path) -> None:
    needs("safetensors")
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "bare")
    with pytest.raises(ExportError, match="settings"):
        read_safetensors(tmp_path / "bare")
    config = json.dumps(replace(ResNetStage2Config(), crop_size=CROP_SIZE).to_dict())
    save_file({"x": torch.zeros(1)}, tmp_path / "incomplete", metadata={"config": config})
    with pytest.raises(CheckpointError):
        read_safetensors(tmp_path / "incomplete")
