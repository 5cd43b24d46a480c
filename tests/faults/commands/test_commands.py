"""Commands under faults, in short. In full: python -m tests.faults.campaign --full --only command_kills, ..."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.faults.build import build_library
from tests.faults.commands.campaign import COMMAND_PARTS, Amount
from tests.faults.commands.injection import fail_at_calls, interrupt, kill_at_calls, kill_at_random
from tests.faults.commands.scenarios import SCENARIOS
from tests.faults.commands.trial import CommandTrial
from tests.faults.commands.whole import faulty_files
from tests.faults.commands.workspace import Result, Workspace
from tests.faults.trial import ALL, ALWAYS, ERROR, KILL_BEFORE, Fault

ALL_CALLS = {"report"}  # a fast command
SAMPLED = {"train cached", "predict --draw"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    library = build_library(tmp_path_factory.mktemp("library"))
    if library is None:
        pytest.skip("no C compiler (cc): faults cannot be injected below Python")
    workspace = Workspace(tmp_path_factory.mktemp("workspace") / "w", library)
    yield workspace
    workspace.close()


def trial_of(workspace: Workspace, name: str) -> CommandTrial:
    return CommandTrial(next(scenario for scenario in SCENARIOS if scenario.name == name), workspace, 1)


@pytest.mark.parametrize("name", sorted(ALL_CALLS | SAMPLED))
def test_a_fault_leaves_whole_files_and_a_command_that_can_be_run_again(workspace: Workspace, name: str) -> None:
    trial = trial_of(workspace, name)
    if name in ALL_CALLS:
        kill_at_calls(trial, 100)
        fail_at_calls(trial, 100)
    else:
        middle = trial.calls // 2
        trial.under_fault(Fault(ALL, KILL_BEFORE, middle))
        trial.under_fault(Fault(ALL, ERROR, middle, errno.ENOSPC, ALWAYS))
        interrupt(trial, 1)
    kill_at_random(trial, 1)
    assert trial.counts["broken"] == []
    assert {"-9", "74"} <= set(trial.counts["ended"])


def test_a_trial_reports_what_a_command_must_not_leave(workspace: Workspace) -> None:
    trial = trial_of(workspace, "report")
    workspace.reset()
    (workspace.trial / "out" / "r.html").write_text("<html>half")
    (workspace.trial / "mine.txt").write_text("changed")
    broken = trial._broken_files()
    assert len(broken) == 2 and "mine.txt" in broken[0] and "ends early" in broken[1]
    assert trial._sentence(Result(1, 0.0, 0, "", "Traceback (most recent call last)\nerror: x\n"))
    assert trial._sentence(Result(74, 0.0, 0, "", "error: unexpected OSError: x\n"))
    assert trial._sentence(Result(74, 0.0, 0, "", "error: a\nerror: b\n"))
    assert trial._sentence(Result(74, 0.0, 0, "", "error: the disk is full\n")) == []


def test_incomplete_files_are_found(tmp_path: Path) -> None:
    Image.linear_gradient("L").save(tmp_path / "a.png")
    (tmp_path / "b.json").write_text('{"x": 1}')
    (tmp_path / "c.jsonl").write_text('{"x": 1}\n{"x": 2}\n')
    whole = sorted(tmp_path.iterdir())
    assert faulty_files(whole) == []
    for path in whole:
        path.write_bytes(path.read_bytes()[:-3])
    assert len(faulty_files(whole)) == 3
    (tmp_path / "unknown").touch()
    assert len(faulty_files([tmp_path / "unknown"])) == 1


def test_amounts() -> None:
    assert (Amount().of(9, 1), Amount(full=True).of(9, 1), Amount(full=True, count=4).of(9, 1)) == (1, 9, 4)
    assert len(COMMAND_PARTS) == 5
