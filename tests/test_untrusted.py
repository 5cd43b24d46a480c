"""Hostile files in the store's place: no code runs, and nothing beside them is touched."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from store.shard import shard_image
from tests.faults.build import build_library
from tests.test_shard import make_shard

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
from store.shard import parse_shard
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
