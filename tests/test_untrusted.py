"""Hostile files in the store's place: no code runs, and nothing beside them is touched."""

import contextlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from classify.model.checkpoint import load_checkpoint
from configs.errors import CheckpointError, IntegrityError, WeightsError
from extract.backbones.weights import load_backbone
from store.format.packed_header import header_of, read_header
from store.format.shard import parse_shard, shard_image
from store.pack import pack_store
from store.reader import load_store
from tests.faults.build import build_library
from tests.faults.damage import make_store
from tests.stores import make_shard

ROOT = Path(__file__).parent.parent
FILTER = 32_123  # a number that HDF5 would look for in HDF5_PLUGIN_PATH

PLUGIN = """
#include <fcntl.h>
#include <stdlib.h>
#include <stddef.h>
/* Loaded by HDF5, it leaves a marker; its filter passes data through. */
__attribute__((constructor)) static void sprung(void) { open(getenv("MARKER"), O_CREAT | O_WRONLY, 0600); }
static size_t pass(unsigned f, size_t n, const unsigned v[], size_t bytes, size_t *size, void **data) { return bytes; }
struct { int version, id; unsigned encoder, decoder; const char *name; void *can, *set; void *filter; }
filter = { 1, 32123, 1, 1, "hostile", 0, 0, pass };
int H5PLget_plugin_type(void) { return 0; }
const void *H5PLget_plugin_info(void) { return &filter; }
"""

READ = """
import sys
from pathlib import Path
from configs.errors import IntegrityError
from store.format.shard import parse_shard
try:
    parse_shard(Path(sys.argv[1]).read_bytes(), "x")
except IntegrityError:
    print("refused")
"""
CARELESS = "import h5py, sys; print(h5py.File(sys.argv[1])['visual'][:])"


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    (tmp_path / "plugins").mkdir()
    source = tmp_path / "hostile.c"
    source.write_text(PLUGIN)
    library = build_library(tmp_path / "plugins", source)
    if library is None:
        pytest.skip("no C compiler (cc): no plugin can be built")
    return library.rename(library.with_name("libhostile.so"))


def with_unknown_filter(path: Path) -> Path:
    """A shard whose features are stored through a filter that this HDF5 does not have."""
    path.write_bytes(shard_image(make_shard()))
    with h5py.File(path, "r+") as file:
        rows = file["visual"][:]
        del file["visual"]
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(rows.shape)
        plist.set_filter(FILTER, h5py.h5z.FLAG_OPTIONAL, ())
        dataset = h5py.h5d.create(file.id, b"visual", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple(rows.shape), plist)
        dataset.write_direct_chunk((0, 0), rows.astype(np.float32).tobytes())
    return path


def child(code: str, path: Path, plugin: Path, marker: Path) -> str:
    environment = os.environ | {"HDF5_PLUGIN_PATH": str(plugin.parent), "MARKER": str(marker), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_a_hostile_plugin_path_loads_nothing(tmp_path: Path, plugin: Path) -> None:
    marker = tmp_path / "pwned"
    path = with_unknown_filter(tmp_path / "shard.h5")
    marker.unlink(missing_ok=True)
    assert "refused" in child(READ, path, plugin, marker)
    assert not marker.exists()
    child(CARELESS, path, plugin, marker)
    assert marker.exists(), "the trap is no live one"


class Evil:
    """Unpickled with trust, it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def hostile_file(path: Path, kind: str, marker: Path) -> Path:
    """A file in one of torch's three formats that makes `marker` when it is unpickled with trust."""
    content = {"model": Evil(marker), "conv1.weight": Evil(marker)}
    if kind == "tar":
        with tarfile.open(path, "w") as archive:
            for name in ("sys_info", "storages", "tensors", "pickle"):
                data = pickle.dumps(content)
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    return path


@pytest.mark.parametrize("kind", ["legacy", "zip", "tar"])
def test_hostile_tensor_files_run_nothing(tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "pwned"
    path = hostile_file(tmp_path / "best_model.pth", kind, marker)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    with pytest.raises(CheckpointError):
        load_checkpoint(path, resume=True)
    with pytest.raises(WeightsError):
        load_backbone("resnet18", str(path))
    assert not marker.exists()
    with contextlib.suppress(Exception), warnings.catch_warnings():  # it may well fail after the trap
        warnings.simplefilter("ignore")  # of tarfile, from Python 3.12 on
        torch.load(path, weights_only=False)
    assert marker.is_dir(), "the trap is no live one"


def test_pickles_in_attributes_and_datasets_are_never_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "pwned"
    bomb = np.void(pickle.dumps(Evil(marker)))
    for place in ("attribute", "dataset", "stray"):
        path = tmp_path / f"{place}.h5"
        path.write_bytes(shard_image(make_shard()))
        with h5py.File(path, "r+") as file:
            if place == "attribute":
                file.attrs["recipe"] = bomb
            else:
                name = "visual" if place == "dataset" else "stray"
                file.pop(name, None)
                file[name] = np.array([bomb])
        if place == "stray":
            parse_shard(path.read_bytes(), "x")  # what is not ours is not read
        else:
            with pytest.raises(IntegrityError):
                parse_shard(path.read_bytes(), "x")
        assert not marker.exists()
    pickle.loads(bomb.tobytes())
    assert marker.is_dir(), "the trap is no live one"


def test_a_hostile_packed_store_reads_no_other_file(tmp_path: Path) -> None:
    """Its checksum fits, as its maker would see to; its features point into a file of the user's."""
    secret = tmp_path / "secret.bin"
    secret.write_bytes(b"s" * 10_000)
    store, packed = make_store(tmp_path / "a.store"), tmp_path / "a.h5"
    pack_store(store, packed)
    header = read_header(packed)
    body = tmp_path / "body.h5"
    body.write_bytes(packed.read_bytes()[header.size :])
    with h5py.File(body, "r+") as file:
        shape = file["visual"].shape
        del file["visual"]
        file.create_dataset("visual", shape, "f2", external=[(str(secret), 0, 2 * shape[0] * shape[1])])
    packed.write_bytes(header_of(header.text, [body.read_bytes()]) + body.read_bytes())
    with pytest.raises(IntegrityError, match="visual"):
        load_store(packed)
    assert secret.read_bytes() == b"s" * 10_000
