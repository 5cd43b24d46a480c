"""The command's process exits at once with the right exit code, and flushes its output and logs first."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import classify.train.loop
import cli
from configs.errors import StorageError
from tests.jobs import QUICK, SCENES, run_cli
from tests.jrdb_folder import write_folder

ROOT = Path(__file__).parents[2]
PRINTS_AT_TEARDOWN = "global kept; kept = type('Kept', (), {'__del__': lambda self: print('teardown')})()"


def run_in_process(code: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Runs `code` as the body of a function under `run_and_exit`, in a new process."""
    text = f"import logging, sys\nfrom cli import run_and_exit\ndef main():\n    {code}\nrun_and_exit(main)"
    settings = {"stdout": subprocess.PIPE} | settings
    return subprocess.run(
        [sys.executable, "-c", text], cwd=ROOT, text=True, stderr=subprocess.PIPE, check=False, **settings
    )


@pytest.mark.parametrize(("code", "expected"), [("pass", 0), ("sys.exit(0)", 0), ("sys.exit(4)", 4), ("sys.exit()", 0)])
def test_the_exit_code_is_that_of_the_function(code: str, expected: int) -> None:
    assert run_in_process(code).returncode == expected


def test_output_and_logs_are_flushed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "print('x' * 100_000); sys.stderr.write('an error'); "
    done = run_in_process(code + f"logging.basicConfig(filename={str(log)!r}); logging.error('logged')")
    assert (done.stdout, done.stderr, done.returncode) == ("x" * 100_000 + "\n", "an error", 0)
    assert "logged" in log.read_text()


def test_an_exit_text_and_an_unexpected_error_are_printed() -> None:
    done = run_in_process("sys.exit('no')")
    assert (done.returncode, done.stderr) == (1, "no\n")
    done = run_in_process("raise ValueError('odd')")
    assert done.returncode == 1 and "ValueError: odd" in done.stderr


def test_output_that_cannot_be_written_is_an_error() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full")
    with full.open("w") as target:
        done = run_in_process("print('x')", stdout=target)
    assert done.returncode != 0 and "No space left" in done.stderr


def test_teardown_is_skipped_unless_the_environment_asks_for_a_normal_exit() -> None:
    assert run_in_process(PRINTS_AT_TEARDOWN).stdout == ""
    normal = run_in_process(PRINTS_AT_TEARDOWN + "; sys.exit(4)", env=os.environ | {"STAGE2_NORMAL_EXIT": "1"})
    assert (normal.stdout, normal.returncode) == ("teardown\n", 4)


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        (("train",), "training had not started"),
        (("run", "test"), "training had not started"),
        (("extract",), "finished units are kept"),
        (("store", "info", "train"), "run the same command again"),
    ],
)
def test_an_interrupt_exits_with_130_and_tells_how_to_continue(
    command: tuple[str, ...], advice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(**_: Any) -> None:
        raise KeyboardInterrupt

    for group, name in ((cli.stage2, command[0]), (cli.store_group, "info")):
        if name != "store":
            monkeypatch.setattr(group.commands[name], "callback", interrupt)
    assert run_cli(*command) == 130
    error = capsys.readouterr().err.strip()
    assert error.startswith("interrupted; ")
    assert advice in error


def run_command(*arguments: str | Path, redirect: str = "", **settings: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command line in a shell, with `redirect` behind it."""
    command = shlex.join([sys.executable, str(ROOT / "cli.py"), *map(str, arguments)])
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{command} {redirect}"],
        text=True,
        capture_output=True,
        check=False,
        env=environment,
        **settings,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a complete store."""
    folder = tmp_path_factory.mktemp("trained")
    write_folder(folder / "data", SCENES, frames=3, people=6)
    assert run_cli("extract", "--data_path", folder / "data", *QUICK, "--store", folder / "s.store") == 0
    return folder


def train_options(folder: Path, run: Path) -> tuple[str | Path, ...]:
    store = ("--data_path", folder / "data", *QUICK, "--freeze_backbone", "--store", folder / "s.store")
    return ("train", *store, "--epochs", "2", "--visual_dim", "8", "--checkpoint_dir", run)


@pytest.mark.parametrize("redirect", ["| head -1", ">&-", "2>&-", ">&- 2>&- <&-", "2>&1 | true"])
def test_p2_a_reader_that_stops_does_not_stop_the_job(trained: Path, tmp_path: Path, redirect: str) -> None:
    done = run_command(*train_options(trained, tmp_path / "run"), redirect=redirect)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "final_results.json").exists()
    assert "Val Epoch 2" in (tmp_path / "run" / "training.log").read_text()
    extract = ("extract", "--data_path", trained / "data", *QUICK, "--store", tmp_path / "new.store")
    done = run_command(*extract, redirect=redirect)
    assert (done.returncode, done.stderr) == (0, "")
    assert run_cli("store", "verify", tmp_path / "new.store") == 0


def test_p2_a_job_that_fails_keeps_its_exit_code_without_streams(tmp_path: Path) -> None:
    for redirect in ("| true", ">&- 2>&-"):
        assert run_command("store", "info", tmp_path / "nowhere", redirect=redirect).returncode == 4


def test_p2_a_closed_descriptor_is_not_given_to_another_file(tmp_path: Path) -> None:
    code = f"import os; file = open({str(tmp_path / 'mine')!r}, 'w'); os.write(1, b'not mine'); file.close()"
    text = f"from configs.process.streams import run_and_exit\ndef main():\n    {code}\nrun_and_exit(main)"
    command = shlex.join([sys.executable, "-c", text])
    subprocess.run(["bash", "-c", f"{command} <&- >&- 2>&-"], cwd=ROOT, check=True)
    assert (tmp_path / "mine").read_text() == ""


def test_p9_a_failure_with_json_is_an_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code in (
        (("store", "info", tmp_path / "nowhere", "--json"), 4),
        (("train", "--json", "--bogus"), 2),
        (("extract", "--json", "--data_path", tmp_path / "nowhere"), 1),
    ):
        assert run_cli(*arguments) == code
        captured = capsys.readouterr()
        failure = json.loads(captured.out)
        assert failure["exit_code"] == code and failure["error"] in captured.err
        assert set(failure) == {"error", "exit_code"}
    assert run_cli("store", "info", tmp_path / "nowhere") == 4
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("code", ["raise ValueError('odd')", "raise EOFError('odd')", "raise OSError('odd')"])
def test_p8_no_command_prints_a_traceback(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fail(**_: Any) -> None:
        exec(code)

    monkeypatch.setattr(cli.stage2.commands["report"], "callback", fail)
    assert run_cli("report", "run") == (74 if "OSError" in code else 1)
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1 and "odd" in error
    (path,) = tmp_path.iterdir()
    assert str(path) in error and "Traceback" in path.read_text()


def test_p8_paths_that_cannot_be_used_are_named(trained: Path, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 300)
    file = tmp_path / "file"
    file.touch()
    for arguments, words in (
        (("extract", "--data_path", long, *QUICK), "x" * 20),
        (("extract", "--data_path", trained / "data", *QUICK, "--store", long), "x" * 20),
        (("store", "info", long), "x" * 20),
        (("store", "pack", trained / "s.store", long), "x" * 20),
        (("report", long), "x" * 20),
        (("synth", long, "--scenes", "3", "--frames", "1"), "x" * 20),
        (("synth", file / "below", "--scenes", "3", "--frames", "1"), "file"),
        (("train", "--config", long), "x" * 20),
        (("demo", "--out", long), "x" * 20),
        (("compare", "--out", long, "--data_path", trained / "data", "--backbones", "hog"), "x" * 20),
    ):
        done = run_command(*arguments, cwd=tmp_path)
        assert done.returncode in {1, 2, 4, 74}, done.stderr
        assert "Traceback" not in done.stderr and "unexpected" not in done.stderr, done.stderr
        assert words in done.stderr


def test_p1_training_on_a_full_disk_is_one_sentence(trained: Path, tmp_path: Path) -> None:
    """`ulimit -f 0` lets every write fail, as a disk without a free byte does."""
    command = shlex.join([sys.executable, str(ROOT / "cli.py"), *map(str, train_options(trained, tmp_path / "run"))])
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 0; {command}"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 74
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"could not write {tmp_path / 'run' / '.stage2-run'}" in done.stderr
    assert {path.name for path in (tmp_path / "run").iterdir()} == {".stage2-run"}
    assert run_cli(*train_options(trained, tmp_path / "run"), "--resume", "auto") == 0


def test_p6_an_existing_run_is_refused_with_the_way_to_continue(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(*train_options(trained, tmp_path / "run")) == 0
    assert run_cli(*train_options(trained, tmp_path / "run")) == 2
    error = capsys.readouterr().err
    assert "--resume auto" in error and "--overwrite" in error


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (StorageError("no space"), 74)])
@pytest.mark.parametrize("seeds", [1, 2])
def test_p5_training_says_after_which_epoch_it_stopped(
    error: BaseException,
    code: int,
    seeds: int,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = (*train_options(trained, tmp_path / "run"), "--seeds", str(seeds))
    save = classify.train.loop.save_checkpoint

    def save_first_epoch(path: Path, info: Any, model: Any, record: dict[str, Any], **extra: Any) -> None:
        if record["epoch"] == 2:
            raise error
        save(path, info, model, record, **extra)

    monkeypatch.setattr(classify.train.loop, "save_checkpoint", save_first_epoch)
    assert run_cli(*options) == code
    advice = f"--resume auto --checkpoint_dir {tmp_path / 'run'} to continue"
    stopped = capsys.readouterr().err
    assert (
        f"after epoch 1; run again with {advice}" if seeds == 1 else f"run again with --seeds 2 {advice}"
    ) in stopped
    monkeypatch.setattr(classify.train.loop, "save_checkpoint", save)
    assert run_cli(*options, "--resume", "auto") == 0


def test_p8_a_small_limit_of_the_address_space_is_named(trained: Path, tmp_path: Path) -> None:
    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = shlex.join([sys.executable, str(ROOT / "cli.py"), *map(str, arguments)])
        script = f"ulimit -v 3500000; {command}"
        return subprocess.run(["bash", "-c", script], text=True, capture_output=True, check=False, cwd=tmp_path)

    done = run(*train_options(trained, tmp_path / "run"))
    assert done.returncode == 1 and "limited to 3.3 GiB (ulimit -v)" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert run("train", "--help").returncode == run("store", "info", trained / "s.store").returncode == 0
