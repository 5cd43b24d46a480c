"""The loaders that are fuzzed, with intact files to start from and the errors that they document.

Imports are inside the functions, so that a process loads only what its loader needs.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import Stage2Error


@dataclass(frozen=True)
class Loader:
    """`load` reads `path`; `intact` are the bytes of files that it accepts."""

    path: Path
    load: Callable[[], object]
    intact: tuple[bytes, ...]
    errors: type[Exception] = Stage2Error


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
    text = json.dumps({"labels": {"000000.jpg": people, "000001.jpg": people[:1]}})
    path = folder / LABELS / "cafe.json"
    path.parent.mkdir(parents=True)
    return Loader(path, lambda: read_scene(folder, "cafe"), (text.encode(), text.replace(" ", "").encode()))


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


def checkpoints(folder: Path) -> Loader:
    """A run's best model, in PyTorch's zip format and in the older one."""
    import io

    import torch
    from torch import nn

    from classify.model.checkpoint import CACHED, RunInfo, load_checkpoint, save_checkpoint
    from classify.model.head import Stage2Model, build_head
    from tests.factories import small_config

    path = folder / "best_model.pth"
    config = small_config(hidden_dim=4, visual_feature_dim=4)
    info = RunInfo(CACHED, config, 8, {"name": "tiny"}, "f", (0.5, 1.0, 1.5))
    save_checkpoint(path, info, Stage2Model(nn.Identity(), build_head(config, 8)), {"epoch": 1})
    old = io.BytesIO()
    torch.save(torch.load(path, weights_only=True), old, _use_new_zipfile_serialization=False)
    return Loader(path, lambda: load_checkpoint(path), (path.read_bytes(), old.getvalue()))


def tensor_files(folder: Path) -> Loader:
    """The reader of tensor files, which checkpoints and weights share."""
    from extract.backbones.tensor_file import read_tensor_file

    checkpoint = checkpoints(folder)
    return Loader(checkpoint.path, lambda: read_tensor_file(checkpoint.path), checkpoint.intact, ValueError)


def configurations(folder: Path) -> Loader:
    """A TOML file with the settings of a run."""
    from configs.options import read_toml
    from configs.resnet_stage2_config import ResNetStage2Config

    path = folder / "c.toml"
    text = b'backbone_name = "resnet18"\nepochs = 3\nlearning_rate = 1e-3\nfreeze_backbone = true\n'
    text += b'[classes]\n"Walking Together" = ["walking together"]\nSitting = ["sitting together"]\n'
    text += b'[split]\ntrain = ["a"]\nval = ["b"]\ntest = ["c"]\n'
    return Loader(path, lambda: ResNetStage2Config.from_dict(read_toml(path)), (text,))


def packed_files(folder: Path) -> Loader:
    """A packed store whose header is changed too."""
    from store.pack import pack_store
    from store.reader import load_store
    from tests.faults.damage import make_store

    path = folder / "a.h5"
    pack_store(make_store(folder / "finished.store"), path)
    return Loader(path, lambda: load_store(path), (path.read_bytes(),))


HISTORY = [
    {
        "epoch": epoch,
        "learning_rate": 1e-3,
        "train_loss": 1.5,
        "val_loss": 1.25,
        "val_accuracy": 0.5,
        "val_mpca": 0.5,
        "val_classes_present": 2,
        "val_per_class_accuracy": [0.5, 0.5, None],
    }
    for epoch in (1, 2)
]


def histories(folder: Path) -> Loader:
    """The history in last.pth, as JSON text that is put into a checkpoint with valid checksums."""
    from classify.evaluate.history import best_record, check_history, epochs_without_improvement

    path = folder / "history.json"

    def load() -> object:
        try:
            history = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise Stage2Error("not JSON") from error
        check_history(path, history, 2)
        return best_record(history), epochs_without_improvement(history)

    return Loader(path, load, (json.dumps(HISTORY).encode(),))


def finished_results() -> dict[str, Any]:
    """The content of a final_results.json."""
    from classify.model.checkpoint import CACHED, RunInfo
    from classify.report.results import build_results
    from tests.factories import small_config

    info = RunInfo(CACHED, small_config(), 8, {"name": "tiny"}, "f", (0.5, 1.0, 1.5))
    test = {
        **{"accuracy": 0.5, "mpca": 0.5, "per_class_accuracy": [0.5, None, 0.25], "classes_present": 2, "pairs": 9},
        **{"confusion_matrix": [[1, 1, 0], [0, 0, 0], [2, 4, 1]], "loss": 1.0},
    }
    baselines = {name: {"accuracy": 0.5, "mpca": 0.5} for name in ("majority", "spatial_only", "knn")}
    results = build_results(info, HISTORY, test, baselines, {"train": 1.0, "extract": 2.0})
    return results | {"pairs_per_class": {"train": [1, 2, 3], "val": [1, 0, 1], "test": [2, 0, 7]}}


def results(folder: Path) -> Loader:
    """final_results.json, from which a report is written."""
    from classify.report.html import write_report

    text = json.dumps(finished_results())
    return Loader(folder / "final_results.json", lambda: write_report(folder, folder / "r.html"), (text.encode(),))


def rows(folder: Path) -> Loader:
    """compare_row.json, from which the table of a comparison is made."""
    from classify.experiments.compare import compare_markdown
    from classify.experiments.finished_row import load_finished

    row = {
        **{"model": "hog", "mode": "cached", "val_accuracy": 0.5, "val_mpca": 0.5, "test_accuracy": 0.5},
        **{"test_mpca": 0.5, "epochs": 2, "seconds_train": 1.0, "seconds_extract": 2.0, "extract_resumed": False},
        **{"peak_memory": 2**30, "memory": "process", "zero_share": 0.25, "run": "out/hog_cached"},
    }
    path = folder / "compare_row.json"

    def load() -> object:
        finished = load_finished(path, "k", "hog", "cached")
        if finished is None:
            return None
        names = ("baselines", "classes", "pairs_per_class")
        return compare_markdown({"rows": [finished["row"]]} | {name: finished["results"][name] for name in names})

    return Loader(path, load, (json.dumps({"key": "k", "row": row, "results": finished_results()}).encode(),))


LOADERS = {
    "annotations": annotations,
    "shards": shards,
    "manifests": manifests,
    "packed": packed,
    "checkpoints": checkpoints,
    "tensor_files": tensor_files,
    "configurations": configurations,
    "packed_files": packed_files,
    "histories": histories,
    "results": results,
    "rows": rows,
}
