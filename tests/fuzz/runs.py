"""The loaders of runs and settings, with intact files to start from and the errors that they document.

Imports are inside the functions, so that a process loads only what its loader needs.
"""

import io
import json
from pathlib import Path
from typing import Any

from configs.errors import Stage2Error
from tests.fuzz.loader import Loader, json_loader

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


def checkpoints(folder: Path) -> Loader:
    """A run's best model, in PyTorch's zip format and in the older one."""
    import torch
    from torch import nn

    from classify.model.checkpoint import CACHED, RunInfo, build_model, load_checkpoint, save_checkpoint
    from classify.model.head import Stage2Model, build_head
    from tests.factories import small_config

    path = folder / "best_model.pth"
    config = small_config(hidden_dim=4, visual_feature_dim=4)
    info = RunInfo(CACHED, config, 8, {"name": "tiny"}, "f", (0.5, 1.0, 1.5))
    save_checkpoint(path, info, Stage2Model(nn.Identity(), build_head(config, 8)), {"epoch": 1})
    old = io.BytesIO()
    torch.save(torch.load(path, weights_only=True), old, _use_new_zipfile_serialization=False)
    value = torch.load(path, weights_only=True)
    intact = (path.read_bytes(), old.getvalue())

    def load() -> object:
        return build_model(load_checkpoint(path), nn.Identity())

    return Loader(path, load, intact, values=(value,), encode=encode_tensors)


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

    return json_loader(path, load, HISTORY)


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

    path = folder / "final_results.json"
    return json_loader(path, lambda: write_report(folder, folder / "r.html", overwrite=True), finished_results())


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

    return json_loader(path, load, {"key": "k", "row": row, "results": finished_results()})


def encode_tensors(value: Any) -> bytes:
    """The bytes of a file by torch.save."""
    import torch

    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def resumed_runs(folder: Path) -> Loader:
    """last.pth, from which a run is resumed."""
    import torch
    from torch import nn

    from classify.model.checkpoint import CACHED, RunInfo, load_checkpoint, save_checkpoint
    from classify.model.head import Stage2Model, build_head
    from classify.run_folder import RunFolder
    from classify.train.head_step import HeadState
    from classify.train.loop import TrainingRun, resume
    from tests.factories import small_config

    path = folder / "last.pth"
    config = small_config(hidden_dim=4, visual_feature_dim=4)
    info = RunInfo(CACHED, config, 8, {"name": "tiny"}, "f", (0.5, 1.0, 1.5))

    def new_run() -> TrainingRun:
        model = Stage2Model(nn.Identity(), build_head(config, 8))
        return TrainingRun(model, HeadState(model.head, config), info, RunFolder(folder))

    run = new_run()
    random = {"order": run.sample_order.get_state(), "cpu": torch.get_rng_state()}
    extra = {"optimizer": run.optimizer.state_dict(), "random": random, "history": HISTORY}
    save_checkpoint(path, info, run.model, HISTORY[-1], **extra)

    def load() -> object:
        return resume(new_run(), load_checkpoint(path, resume=True))

    value = torch.load(path, weights_only=True)
    return Loader(path, load, (path.read_bytes(),), values=(value,), encode=encode_tensors)


RUN_LOADERS = {
    "checkpoints": checkpoints,
    "resumed_runs": resumed_runs,
    "tensor_files": tensor_files,
    "configurations": configurations,
    "histories": histories,
    "results": results,
    "rows": rows,
}
