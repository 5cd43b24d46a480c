"""Small files that ask for much memory are refused before it is allocated."""

import io
import os
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from configs.errors import WeightsError
from extract.backbones.tensor_file import parse_tensor_file, read_tensor_file
from extract.backbones.weights import load_backbone

ROOT = Path(__file__).parents[3]
LIMIT = 2**30  # bytes of memory that a refused file may not need
HUGE = 3 * 2**30


class Call:
    """Pickled as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def saved(content: Any, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def rewritten(data: bytes, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """The archive `data` with changed members."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w", compression) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, change(entry.filename, source.read(entry)))
    return out.getvalue()


def zip_bomb() -> bytes:
    small = saved({"conv1.weight": torch.zeros(4)})
    return rewritten(
        small, lambda name, data: data + bytes(100 * 2**20 * name.endswith("/data/0")), zipfile.ZIP_DEFLATED
    )


def huge_storage(zipped: bool) -> bytes:
    """Declares 2**30 floats: their number, 1000, is written as M with two bytes, and as J with four."""
    data = saved({"conv1.weight": torch.zeros(1000)}, zipped)
    small, large = b"M\xe8\x03", b"J" + (2**30 - 1).to_bytes(4, "little")
    if zipped:
        return rewritten(data, lambda name, part: part.replace(small, large) if name.endswith(".pkl") else part)
    return data.replace(small, large)


FILES: dict[str, Callable[[], bytes]] = {
    "zip bomb": zip_bomb,
    "expanded tensor": lambda: saved({"conv1.weight": torch.zeros(1).expand(HUGE)}),
    "expanded tensor, old format": lambda: saved({"conv1.weight": torch.zeros(1).expand(HUGE)}, False),
    "expanded parameter in a list": lambda: saved([{"a": nn.Parameter(torch.zeros(1).expand(HUGE))}]),
    "huge storage": lambda: huge_storage(True),
    "huge storage, old format": lambda: huge_storage(False),
    "bytearray": lambda: saved({"conv1.weight": Call(bytearray, HUGE)}),
    "tensor class": lambda: saved({"conv1.weight": Call(torch.Tensor, HUGE)}),
    "typed tensor class": lambda: saved({"conv1.weight": Call(torch.DoubleTensor, HUGE)}, False),
    "doubling codec": lambda: saved({"conv1.weight": Call(__import__("codecs").encode, b"x" * 100, "hex")}),
}

CHILD = """
import resource, sys
from pathlib import Path
import extract.backbones.weights as weights
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {limit},) * 2)
try:
    weights.load_backbone("resnet18", sys.argv[1])
except weights.WeightsError as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("name", FILES)
def test_h1_a_small_file_that_declares_much_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"declares|compressed|contains"):
        parse_tensor_file(FILES[name]())


def test_h1_refusing_them_takes_no_memory(tmp_path: Path) -> None:
    """In a child process with limited memory; a MemoryError would be another message."""
    for name in ("expanded tensor", "huge storage, old format", "bytearray", "zip bomb"):
        path = tmp_path / "w.pth"
        path.write_bytes(FILES[name]())
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", CHILD.format(limit=LIMIT), str(path)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert "refused" in done.stdout, done.stderr
        assert any(word in done.stdout for word in ("declares", "compressed", "contains")), (name, done.stdout)


def test_h1_an_archive_whose_directory_declares_more_than_the_file_has_is_refused() -> None:
    data = bytearray(rewritten(saved({"a": torch.zeros(1000)}), lambda _, part: part))
    entry = data.rindex(b"PK\x01\x02")  # the last entry of the directory: sizes are at 20 to 28
    data[entry + 20 : entry + 28] = (2 * len(data)).to_bytes(4, "little") * 2
    with pytest.raises(ValueError, match="declares more data than it has bytes"):
        parse_tensor_file(bytes(data))


def test_what_people_save_is_read() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.rand(4, 3)).sum().backward()
    optimizer.step()
    flat = torch.arange(10.0)
    with_attribute = nn.Parameter(torch.ones(2))
    with_attribute.note = "x"
    content = {
        "model": OrderedDict(model.state_dict()),
        "parameters": dict(model.named_parameters()),
        "optimizer": optimizer.state_dict(),
        "views": [flat[:5], flat[5:], flat[::2]],
        "half": torch.zeros(3, dtype=torch.bfloat16),
        "empty": torch.empty(0),
        "with attribute": with_attribute,
        "seed": 2**63 - 1,
        "plain": [1, 2.5, None, True, "text", (1, 2), {1, 2}, torch.float32, torch.Size([1])],
    }
    for zipped in (True, False):
        loaded = parse_tensor_file(saved(content, zipped))
        assert torch.equal(loaded["views"][2], flat[::2])
        assert loaded["seed"] == 2**63 - 1
        assert torch.equal(loaded["with attribute"], with_attribute)
        assert torch.equal(loaded["model"]["0.weight"], model[0].weight)
        assert loaded["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]


@pytest.mark.timeout(20)
def test_h4_a_fifo_as_weights_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="not a regular file"):
        load_backbone("resnet18", str(tmp_path / "w.pth"))
    os.mkfifo(tmp_path / "best_model.pth")
    with pytest.raises(WeightsError, match="not a regular file"):
        load_backbone("resnet18", str(tmp_path))


def test_h3_a_link_in_a_run_folder_is_not_followed_but_a_typed_one_is(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "w.pth")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best_model.pth").symlink_to(tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="is a link"):
        load_backbone("resnet18", str(tmp_path / "run"))
    assert "conv1.weight" in read_tensor_file(tmp_path / "run" / "best_model.pth")
