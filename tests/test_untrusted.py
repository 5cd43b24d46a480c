"""Malicious stores, checkpoints and weights: no code runs, and no other file is read or changed."""

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
from store.format.packed_header import make_header, read_header
from store.format.shard_file import parse_shard, shard_image
from store.pack import pack_store
from store.reader import load_store
from tests.faults.build import build_library
from tests.faults.damage import make_store
from tests.stores import make_shard

ROOT = Path(__file__).parent.parent
FILTER = 32_123  # an unregistered filter, for which HDF5 searches HDF5_PLUGIN_PATH

PLUGIN = """
#include <fcntl.h>
#include <stdlib.h>
#include <stddef.h>
/* Creates the marker file when HDF5 loads it; the filter passes data through. */
__attribute__((constructor)) static void create_marker(void) { open(getenv("MARKER"), O_CREAT | O_WRONLY, 0600); }
static size_t pass_through(unsigned f, size_t n, const unsigned v[], size_t bytes, size_t *size, void **data) {
    return bytes;
}
struct { int version, id; unsigned encoder, decoder; const char *name; void *can, *set; void *filter; }
filter = { 1, 32123, 1, 1, "malicious", 0, 0, pass_through };
int H5PLget_plugin_type(void) { return 0; }
const void *H5PLget_plugin_info(void) { return &filter; }
"""

READ = """
import sys
from pathlib import Path
from configs.errors import IntegrityError
from store.format.shard_file import parse_shard
try:
    parse_shard(Path(sys.argv[1]).read_bytes(), "x")
except IntegrityError:
    print("refused")
"""
UNPROTECTED = "import h5py, sys; print(h5py.File(sys.argv[1])['visual'][:])"


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    (tmp_path / "plugins").mkdir()
    source = tmp_path / "malicious.c"
    source.write_text(PLUGIN)
    library = build_library(tmp_path / "plugins", source)
    if library is None:
        pytest.skip("no C compiler (cc): the plugin cannot be built")
    return library.rename(library.with_name("libmalicious.so"))


def write_with_filter(path: Path) -> Path:
    """Writes a shard whose features use a filter that only the plugin provides."""
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


def run_child(code: str, path: Path, plugin: Path, marker: Path) -> str:
    environment = os.environ | {"HDF5_PLUGIN_PATH": str(plugin.parent), "MARKER": str(marker), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_shards_load_no_hdf5_plugin(tmp_path: Path, plugin: Path) -> None:
    marker = tmp_path / "marker"
    path = write_with_filter(tmp_path / "shard.h5")
    marker.unlink(missing_ok=True)
    assert "refused" in run_child(READ, path, plugin, marker)
    assert not marker.exists()
    run_child(UNPROTECTED, path, plugin, marker)
    assert marker.exists(), "the malicious file does not work, so the test proves nothing"


class Malicious:
    """Creates the folder `marker` when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def write_malicious(path: Path, kind: str, marker: Path) -> Path:
    """Writes a file in one of PyTorch's three formats that creates `marker` when it is unpickled."""
    content = {"model": Malicious(marker), "conv1.weight": Malicious(marker)}
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
def test_malicious_tensor_files_run_no_code(tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "marker"
    path = write_malicious(tmp_path / "best_model.pth", kind, marker)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)
    with pytest.raises(CheckpointError):
        load_checkpoint(path, resume=True)
    with pytest.raises(WeightsError):
        load_backbone("resnet18", str(path))
    assert not marker.exists()
    with contextlib.suppress(Exception), warnings.catch_warnings():  # unpickling may fail after it has run the code
        warnings.simplefilter("ignore")  # tarfile warns since Python 3.12
        torch.load(path, weights_only=False)
    assert marker.is_dir(), "the malicious file does not work, so the test proves nothing"


def test_pickles_in_shards_are_not_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pickled = np.void(pickle.dumps(Malicious(marker)))
    for place in ("attribute", "dataset", "stray"):
        path = tmp_path / f"{place}.h5"
        path.write_bytes(shard_image(make_shard()))
        with h5py.File(path, "r+") as file:
            if place == "attribute":
                file.attrs["recipe"] = pickled
            else:
                name = "visual" if place == "dataset" else "stray"
                file.pop(name, None)
                file[name] = np.array([pickled])
        if place == "stray":
            parse_shard(path.read_bytes(), "x")  # unknown datasets are not read
        else:
            with pytest.raises(IntegrityError):
                parse_shard(path.read_bytes(), "x")
        assert not marker.exists()
    pickle.loads(pickled.tobytes())
    assert marker.is_dir(), "the malicious file does not work, so the test proves nothing"


def test_a_packed_store_cannot_read_another_file(tmp_path: Path) -> None:
    """Its features are external data in a file of the user; its checksum is valid."""
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
    packed.write_bytes(make_header(header.text, [body.read_bytes()]) + body.read_bytes())
    with pytest.raises(IntegrityError, match="visual"):
        load_store(packed)
    assert secret.read_bytes() == b"s" * 10_000
