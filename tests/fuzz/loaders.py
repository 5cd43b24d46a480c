"""The loaders of data and stores, with intact files to start from and the errors that they document.

Imports are inside the functions, so that a process loads only what its loader needs.
"""

import json
from pathlib import Path
from typing import Any

from configs.errors import Stage2Error, StoreError
from tests.fuzz.loader import Loader, encode_json
from tests.fuzz.runs import RUN_LOADERS


def annotations(folder: Path) -> Loader:
    """A scene's annotation file."""
    from extract.annotations.jrdb import LABELS, read_scene

    people = [
        {"label_id": "pedestrian:1", "box": [1, 2.5, 30, 40], "H-interaction": []},
        {
            "label_id": "pedestrian:2",
            "box": [50, 2, 3, 4],
            "H-interaction": [{"pair": "pedestrian:1", "inter_labels": {"walking together": 1}}],
        },
    ]
    value = {"labels": {"000000.jpg": people, "000001.jpg": people[:1]}}
    text = json.dumps(value)
    path = folder / LABELS / "cafe.json"
    path.parent.mkdir(parents=True)
    intact = (text.encode(), text.replace(" ", "").encode())
    return Loader(path, lambda: read_scene(folder, "cafe"), intact, values=(value,), encode=encode_json)


def shards(folder: Path) -> Loader:
    """The bytes of a shard. Its checksum is not checked here, so that the parser is tested alone."""
    from store.format.shard_file import parse_shard, shard_file, shard_image
    from tests.faults.workload import shard_of

    path = folder / "u.h5"
    return Loader(
        path,
        lambda: parse_shard(path.read_bytes(), "u.h5"),
        tuple(make(shard_of(n)) for n in (0, 1) for make in (shard_image, shard_file)),
    )


def manifests(folder: Path) -> Loader:
    """STORE.json of an unfinished and of a finished store."""
    from store.format.manifest import manifest_text
    from store.open import read_manifest
    from tests.faults.damage import make_store
    from tests.faults.workload import make_plan

    finished = (make_store(folder / "finished.store") / "STORE.json").read_bytes()
    return Loader(folder / "STORE.json", lambda: read_manifest(folder), (manifest_text(make_plan(3)), finished))


def packed(folder: Path) -> Loader:
    """A packed store with a valid checksum over the changed bytes."""
    from store.format.packed_header import make_header, read_header
    from store.pack import pack_store
    from store.reader import load_store
    from tests.faults.damage import make_store

    path = folder / "a.h5"
    pack_store(make_store(folder / "finished.store"), path)
    data, header = path.read_bytes(), read_header(path)

    def load() -> object:
        path.write_bytes(make_header(header.text, [path.read_bytes()]) + path.read_bytes())
        return load_store(path)

    return Loader(path, load, (data[header.size :],))


def packed_files(folder: Path) -> Loader:
    """A packed store whose header is changed too."""
    from store.pack import pack_store
    from store.reader import load_store
    from tests.faults.damage import make_store

    path = folder / "a.h5"
    pack_store(make_store(folder / "finished.store"), path)
    return Loader(path, lambda: load_store(path), (path.read_bytes(),))


def changed_manifests(folder: Path) -> Loader:
    """STORE.json with changed values and valid checksums, beside the shards of the store."""
    from store.format.manifest import _parse, manifest_text
    from store.reader import load_store, store_info
    from tests.faults.damage import make_store

    store = make_store(folder / "finished.store")
    path = store / "STORE.json"

    def encode(value: Any) -> bytes:
        try:
            return manifest_text(_parse(value))
        except (KeyError, TypeError, ValueError, AttributeError, Stage2Error):
            return encode_json(value)

    def load() -> object:
        return store_info(store), load_store(store)

    intact = path.read_bytes()
    return Loader(path, load, (intact,), values=(json.loads(intact),), encode=encode)


def skipped_lists(folder: Path) -> Loader:
    """skipped.jsonl of a finished store, which `store verify` compares with its shards."""
    from store.checks.verify import verify
    from tests.faults.damage import make_store

    store = make_store(folder / "finished.store")
    path = store / "skipped.jsonl"

    def load() -> object:
        result = verify(store)
        if result.faults:
            raise StoreError("the store is faulty")
        return result

    return Loader(path, load, (path.read_bytes(),))


def images(folder: Path) -> Loader:
    """An image file, as JPEG and as PNG."""
    import io

    from PIL import Image

    from extract.images.read import FrameError, read_frame

    path = folder / "a.jpg"
    image, intact = Image.linear_gradient("L").convert("RGB").resize((64, 16)), []
    for kind in ("JPEG", "PNG"):
        file = io.BytesIO()
        image.save(file, kind)
        intact.append(file.getvalue())

    def load() -> object:
        return read_frame(path, folder)

    return Loader(path, load, tuple(intact), FrameError)


def image_caches(folder: Path) -> Loader:
    """The cache of images' sha256 beside a store. A damaged one is not used, which is an error here."""
    from extract.images.file_cache import FileCache
    from store.format.paths import StorePaths
    from store.format.recipe import digest

    path = StorePaths(folder).image_cache
    entries = {"/data/a.jpg": [10, 20, 30, 40, "a" * 64]}

    def encode(value: object) -> bytes:
        try:
            return encode_json({"checksum": digest(value), "images": value})
        except ValueError:  # NaN or infinity
            return encode_json({"checksum": "", "images": value})

    def load() -> object:
        known = FileCache([path])._loaded
        if not known:
            raise Stage2Error("the cache is not used")
        return known

    return Loader(path, load, (encode(entries),), values=(entries,), encode=encode)


def markers(folder: Path) -> Loader:
    """The marker of a run folder. A folder with a damaged one is not used, which is an error here."""
    from store.ownership import RUN, is_marked, is_unused, own_folder

    path = folder / "run" / ".stage2-run"
    with own_folder(path, RUN):
        intact = path.read_bytes()

    def load() -> object:
        if not is_marked(path, RUN):
            is_unused(path, RUN)
            raise Stage2Error("not a run folder")
        with own_folder(path, RUN):
            return path.read_bytes() == intact

    return Loader(path, load, (intact,))


LOADERS = {
    "annotations": annotations,
    "shards": shards,
    "manifests": manifests,
    "changed_manifests": changed_manifests,
    "packed": packed,
    "packed_files": packed_files,
    "skipped_lists": skipped_lists,
    "images": images,
    "image_caches": image_caches,
    "markers": markers,
} | RUN_LOADERS
