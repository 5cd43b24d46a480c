"""The commands end to end: help, spellings, results, exit codes, and one sentence per error."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import cli
from store.format.shard import Shard
from tests.jobs import QUICK, SCENES, run_cli
from tests.jrdb_folder import person, write_folder, write_scene

ROOT = Path(__file__).parents[2]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


def json_of(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    """Runs a command with --json, checks that it succeeds and prints one JSON object only, and returns the object."""
    capsys.readouterr()
    assert run_cli(*arguments, "--json") == 0
    values = json.loads(capsys.readouterr().out)
    assert isinstance(values, dict)
    return values


def commands(
    group: click.Group = cli.stage2, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("jrdb"), SCENES, frames=4, people=8)


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("path", "command"), list(commands()), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_and_option_has_help(path: tuple[str, ...], command: click.Command) -> None:
    assert command.help
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, option.name
    if path[0] != "store":
        assert f"stage2 {path[0]}" in (ROOT / "docs" / "usage.md").read_text()


def test_help_imports_no_heavy_module() -> None:
    code = "import sys, cli; cli.stage2.main(['train', '--help'], standalone_mode=False)\n"
    code += "assert not {'torch', 'numpy', 'h5py', 'faiss', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_options_may_be_typed_with_hyphens(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = json_of(capsys, "extract", "--data-path", data, "--crop-size", "32", *QUICK, "--store", "s.store")
    assert job["frames_decoded"] == 16
    assert job["planned"] == job["stored"]


def test_a_second_extraction_decodes_nothing(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_cli("extract", "--data_path", data, *QUICK)
    job = json_of(capsys, "extract", "--data_path", data, *QUICK)
    assert (job["frames_decoded"], job["crops_forwarded"]) == (0, 0)


def test_store_info_agrees_with_the_job(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = json_of(capsys, "extract", "--data_path", data, *QUICK, "--store", "s.store")
    info = json_of(capsys, "store", "info", "s.store")
    assert info == {key: job[key] for key in info}
    assert {"complete", "format", "fingerprint", "recipe", "scenes", "planned", "stored"} <= set(info)
    assert {"frames", "persons", "pairs"} <= set(info)
    assert {"skipped", "visual_dim", "dtype", "bytes", "zero_share"} <= set(info)


def test_train_then_evaluate_predict_and_report(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--data_path", data, *QUICK, "--epochs", "2", "--visual_dim", "8", "--freeze_backbone")
    assert run_cli("train", *options, "--checkpoint_dir", "run") == 0
    printed = capsys.readouterr().out
    for line in (
        "RESNET STAGE2 CONFIGURATION",
        "✅ ResNet Stage2 data loaders created:",
        "New best model saved! mpca: ",
    ):
        assert line in printed
    results = json.loads(Path("run/final_results.json").read_text())
    store = next(Path("stores").iterdir())
    for source in (("--store", store), ("--data_path", data)):
        metrics = json_of(capsys, "evaluate", "run", *source)
        assert metrics["confusion_matrix"] == results["test_confusion_matrix"]
    assert run_cli("predict", "run", "--data_path", data, "--out", "answers.json", "--draw", "pictures") == 0
    answers = json.loads(Path("answers.json").read_text())["scenes"]
    assert sum(len(scene["labels"]) for scene in answers.values()) == 16
    assert len(list(Path("pictures").rglob("*.jpg"))) == 16
    assert run_cli("report", "run") == 0
    assert f"{results['test_mpca']:.3f}" in Path("run/report.html").read_text()


def test_another_head_reuses_the_store(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--data_path", data, *QUICK, "--epochs", "1", "--freeze_backbone")
    for head in (("--fusion", "add", "--visual_dim", "6"), ("--fusion", "bilinear", "--visual_dim", "10")):
        assert run_cli("train", *options, *head) == 0
    assert len(list(Path("stores").iterdir())) == 1
    assert "Extracting" not in capsys.readouterr().out.split("Features:", 1)[1]


def test_a_store_with_another_recipe_is_refused_with_the_difference(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cli("extract", "--data_path", data, *QUICK, "--store", "s.store")
    capsys.readouterr()
    options = ("--data_path", data, "--weights", "random", "--crop_size", "48", "--store", "s.store")
    assert run_cli("train", *options, "--freeze_backbone") == 4
    error = capsys.readouterr().err
    assert "crop_size 32" in error
    assert len(error.strip().splitlines()) == 1


def test_skipped_items_give_exit_code_3(tmp_path: Path) -> None:
    people = [person(1), person(2, (50, 10, 0, 20))]  # no width
    write_scene(tmp_path / "d", "cafe", {"000000.jpg": people})
    assert run_cli("extract", "--data_path", tmp_path / "d", *QUICK, "--max_skipped", "0.5") == 3
    assert run_cli("extract", "--data_path", tmp_path / "d", *QUICK, "--store", "other.store") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("train", "--bogus"), 2, "--bogus"),
        (("train", "--epochs", "0", "--data_path", "x"), 2, "epochs"),
        (("extract", "--data_path", "nowhere", "--weights", "random"), 1, "--data_path"),
        (("extract", "--data_path", "nowhere", "--weights", "missing.pth"), 1, "nowhere does not exist"),
        (("train", "--data_path", "nowhere", "--weights", "missing.pth"), 1, "nowhere does not exist"),
        (("run",), 2, "resnet18_frozen"),
        (("evaluate", "nowhere", "--store", "s"), 4, "nowhere"),
        (("evaluate", "nowhere"), 2, "--store or --data_path"),
        (("report", "nowhere"), 1, "final_results.json"),
        (("store", "info", "nowhere"), 4, "STORE.json"),
        (("train", "--config", "missing.toml"), 2, "missing.toml"),
        (("run", "resnet19"), 2, "did you mean 'resnet18'?"),
    ],
)
def test_an_error_is_one_sentence_with_its_exit_code(
    arguments: tuple[str, ...], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(*arguments) == code
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_a_config_file_is_strict_and_options_override_it(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("c.toml").write_text("epochs = 3\nbogus = 1\n")
    assert run_cli("train", "--config", "c.toml", "--data_path", data) == 2
    assert "'bogus'" in capsys.readouterr().err
    Path("c.toml").write_text("epochs = 3\nvisual_feature_dim = 4\nfreeze_backbone = true\n")
    options = ("--config", "c.toml", "--data_path", data, *QUICK, "--epochs", "1", "--checkpoint_dir", "r")
    assert run_cli("train", *options) == 0
    config = json.loads(Path("r/config.json").read_text())
    assert (config["epochs"], config["visual_feature_dim"]) == (1, 4)


def test_a_run_is_not_overwritten(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("train", "--data_path", data, *QUICK, "--epochs", "1", "--freeze_backbone", "--checkpoint_dir", "r")
    assert run_cli(*options) == 0
    assert run_cli(*options) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run_cli(*options, "--overwrite") == 0


def test_the_scripts_of_the_guide_train(data: Path, tmp_path: Path) -> None:
    options = ["--data_path", str(data), *QUICK, "--epochs", "1", "--freeze_backbone"]
    for script in (["train_resnet_stage2.py"], ["run_resnet_training.py", "test"]):
        command = [sys.executable, str(ROOT / script[0]), *script[1:], *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=ONE_THREAD)
        assert done.returncode == 0, done.stderr
        assert "RESNET STAGE2 CONFIGURATION" in done.stdout


def test_a_preset_can_be_chosen_from_a_list(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "6")
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    assert run_cli("run", "--data_path", data, *QUICK, "--freeze_backbone", "--checkpoint_dir", "r") == 0
    assert json.loads(Path("r/config.json").read_text())["batch_size"] == 2


def test_train_finishes_an_interrupted_extraction(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from store.writer import StoreWriter

    commit = StoreWriter.commit

    def commit_one(self: StoreWriter, number: int, shard: Shard) -> None:
        commit(self, number, shard)
        raise KeyboardInterrupt

    monkeypatch.setattr(StoreWriter, "commit", commit_one)
    options = ("--data_path", data, *QUICK, "--store", "s.store")
    assert run_cli("extract", *options) == 130
    monkeypatch.setattr(StoreWriter, "commit", commit)
    assert json_of(capsys, "store", "info", "s.store")["complete"] is False
    assert run_cli("train", *options, "--freeze_backbone", "--epochs", "1") == 0
