"""What an exported file promises besides the model's output: names, sizes, notices, and nothing of this machine."""

import json
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch

from classify.export.export import export, random_inputs
from classify.export.formats import ONNX, OPSET, PT2
from tests.classify.export.exported import needs, torch_2_11_warns
from tests.factories import make_random_run
from tests.jobs import run_cli

REPOSITORY = str(Path(__file__).parents[3])


def export_twice(folder: Path, kind: str) -> tuple[Path, Path]:
    """The same random run, exported to two files in `folder`."""
    needs(kind)
    run, _ = make_random_run(folder)
    files = folder / "one", folder / "two"
    for file in files:
        export(run, file, kind)
    assert sorted(path.name for path in folder.iterdir() if path.is_file())[-2:] == ["one", "two"]
    return files


def test_onnx_files_are_reproducible_and_have_named_dimensions(tmp_path: Path) -> None:
    first, second = export_twice(tmp_path, ONNX)
    import onnx

    assert first.read_bytes() == second.read_bytes()
    assert REPOSITORY.encode() not in first.read_bytes()
    model = onnx.load(first)
    shapes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    assert shapes == {
        "crops": ["persons", 3, 32, 32],
        "boxes": ["persons", 4],
        "size": ["pairs", 2],
        "people": ["pairs"],
        "a": ["pairs"],
        "b": ["pairs"],
        "probabilities": ["pairs", 3],
    }
    assert [(item.domain, item.version) for item in model.opset_import] == [("", OPSET)]


def test_pt2_files_are_reproducible_and_refuse_crops_of_another_size(tmp_path: Path) -> None:
    first, second = export_twice(tmp_path, PT2)
    assert first.read_bytes() == second.read_bytes()
    with ZipFile(first) as archive:
        assert not any(REPOSITORY.encode() in archive.read(name) for name in archive.namelist())
    with torch_2_11_warns():
        model = torch.export.load(first).module()
    with pytest.raises(AssertionError, match="crops"):
        model(*random_inputs(3, 2, 48))


@pytest.mark.parametrize("kind", ["torchscript", "pt2"])
def test_only_torchscript_is_announced_as_deprecated(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = make_random_run(tmp_path)
    assert run_cli("export", folder, "--format", kind, "--out", tmp_path / "model", "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["format"] == kind
    assert ("deprecated" in printed.err and "--format pt2" in printed.err) == (kind == "torchscript")
