"""The commands that run under faults: their arguments, what is there before, and what their outputs say."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from classify.experiments.compare import RESULT
from classify.model.checkpoint import load_checkpoint
from classify.run_folder import RunFolder
from store.open import read_manifest
from tests.faults.commands.whole import is_temporary
from tests.faults.commands.workspace import HEAD, Workspace
from tests.jobs import QUICK

Arguments = tuple[str | Path, ...]
SECONDS = {"seconds", "seconds_train", "seconds_extract", "peak_memory", "extract_resumed"}  # differ between runs


@dataclass(frozen=True)
class Scenario:
    """A command line, what is in its folder before, and the content of its finished outputs, to compare."""

    name: str
    arguments: Callable[[Workspace], Arguments]
    content: Callable[[Path], Any]  # of the folder `out`, without what differs between two runs
    prepare: Callable[[Workspace], None] = lambda _: None
    resume: Arguments = ()  # options that continue an interrupted command


def without_seconds(value: Any) -> Any:
    """A JSON value without durations and memory."""
    if isinstance(value, dict):
        return {name: without_seconds(item) for name, item in value.items() if name not in SECONDS}
    return [without_seconds(item) for item in value] if isinstance(value, list) else value


def run_content(folder: Path) -> Any:
    """The metrics, the history, the weights and the names of the files of a finished run.

    The cache of image checksums is left out: it is written only if the images are some seconds old.
    """
    run = RunFolder(folder)
    model = load_checkpoint(run.best_model).model
    weights = {name: float(value.double().abs().sum()) for name, value in model.items() if torch.is_tensor(value)}
    results = without_seconds(json.loads(run.results.read_text()))
    history = without_seconds([json.loads(line) for line in run.metrics.read_text().splitlines()])
    return (
        results,
        history,
        weights,
        sorted({path.name for path in folder.iterdir()} - {run.report.name, run.images.name}),
    )


def tree_content(folder: Path) -> Any:
    """The sha256 of all files but temporary ones, which a kill may leave."""
    files = Workspace.digest(folder).items()
    return {name: value for name, value in files if not is_temporary(Path(name).relative_to(folder))}


def store_content(folder: Path) -> Any:
    """The shards of a finished store."""
    return [unit.shard for unit in read_manifest(folder).units], (folder / "skipped.jsonl").read_bytes()


def train_arguments(workspace: Workspace, *more: str | Path) -> Arguments:
    """A training; `more` says of what."""
    return ("train", "--data_path", workspace.data, *QUICK, *HEAD, "--checkpoint_dir", "out/run", "--json", *more)


def predict_arguments(workspace: Workspace, *more: str) -> Arguments:
    """Predictions with pictures."""
    out = ("--out", "out/p.json", "--draw", "out/drawn", "--device", "cpu", "--json", *more)
    return ("predict", workspace.base / "run", "--data_path", workspace.data, *out)


def finetune_arguments(workspace: Workspace) -> Arguments:
    """A fine-tuning of the finished run, with a frozen backbone to save time."""
    start = ("--from", workspace.base / "run", "--freeze_blocks", "4", "--checkpoint_dir", "out/run", "--json")
    options = ("--epochs", "2", "--batch_size", "8", "--device", "cpu", "--num_workers", "0")
    return ("finetune", "--data_path", workspace.data, *start, *options)


def compare_arguments(workspace: Workspace) -> Arguments:
    """A comparison of two backbones."""
    options = ("--backbones", "hog,resnet18", "--modes", "cached", "--out", "out/c", "--epochs", "2", "--json")
    return ("compare", "--data_path", workspace.data, *QUICK, *options)


def extract_arguments(workspace: Workspace) -> Arguments:
    """An extraction."""
    return ("extract", "--data_path", workspace.data, *QUICK, "--store", "out/x.store", "--json")


def copy_run(workspace: Workspace) -> None:
    """An older run, of another seed, in the run folder."""
    workspace.make(
        *train_arguments(workspace, "--freeze_backbone", "--store", str(workspace.base / "s.store"), "--seed", "7")
    )


def damage_store(workspace: Workspace) -> None:
    """A store with a damaged shard."""
    workspace.make(*extract_arguments(workspace))
    store = workspace.trial / "out" / "x.store"
    shard = store / "shards" / read_manifest(store).units[1].shard
    shard.write_bytes(b"damaged" + shard.read_bytes()[7:])


CACHED = "--freeze_backbone"
RESUME = ("--resume", "auto")
STORE = "out/s.store"
SCENARIOS = (
    Scenario(
        "train cached", lambda w: train_arguments(w, CACHED, "--store", STORE), lambda out: run_content(out / "run"),
        resume=RESUME,
    ),
    Scenario(
        "train seeds", lambda w: train_arguments(w, CACHED, "--store", str(w.base / "s.store"), "--seeds", "2"),
        lambda out: [run_content(path) for path in sorted((out / "run").glob("seed*"))], resume=RESUME,
    ),
    Scenario(
        "train --overwrite",
        lambda w: train_arguments(w, CACHED, "--store", str(w.base / "s.store"), "--overwrite"),
        lambda out: run_content(out / "run"), copy_run,
    ),
    Scenario("train end to end", train_arguments, lambda out: run_content(out / "run"), resume=RESUME),
    Scenario("finetune", finetune_arguments, lambda out: run_content(out / "run"), resume=RESUME),
    Scenario("predict --draw", predict_arguments, tree_content),
    Scenario(
        "predict --overwrite", lambda w: predict_arguments(w, "--overwrite"), tree_content,
        lambda w: w.make(*predict_arguments(w, "--pairs", "all")),
    ),
    Scenario("report", lambda w: ("report", w.base / "run", "--out", "out/r.html"), tree_content),
    Scenario(
        "export", lambda w: ("export", w.base / "run", "--format", "onnx", "--out", "out/m.onnx", "--json"),
        tree_content,
    ),
    Scenario("compare", compare_arguments, lambda out: without_seconds(json.loads((out / "c" / RESULT).read_text()))),
    Scenario(
        "synth", lambda _: ("synth", "out/d", "--scenes", "3", "--frames", "1", "--people", "2"), tree_content
    ),
    Scenario("extract", extract_arguments, lambda out: store_content(out / "x.store")),
    Scenario(
        "store pack", lambda w: ("store", "pack", w.base / "s.store", "out/x.h5"), tree_content
    ),
    Scenario(
        "store repair",
        lambda w: ("store", "repair", "out/x.store", "--data_path", w.data, "--device", "cpu", "--json"),
        lambda out: store_content(out / "x.store"), damage_store,
    ),
)  # fmt: skip
