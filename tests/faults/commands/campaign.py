"""The parts of the campaign that run whole commands, called by `tests.faults.campaign`."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.faults.commands.injection import fail_at_calls, interrupt, kill_at_calls, kill_at_random
from tests.faults.commands.scenarios import SCENARIOS
from tests.faults.commands.trial import CommandTrial
from tests.faults.commands.workspace import Workspace
from tests.faults.commands.writes import recorded_commands, stray_writes

KILLED_AT_RANDOM = ("train cached", "finetune", "predict --draw")
ALL_CALLS = 10**9


@dataclass(frozen=True)
class Amount:
    """How much of a part is run."""

    full: bool = False
    commands: Sequence[str] = ()  # names of SCENARIOS; (): all of the part
    count: int = 0  # trials of each kind and command; 0: as many as `full` says
    seed: int = 0  # of random moments
    seconds: float = float("inf")  # for each command; later trials are left out

    def of(self, full: int, quick: int) -> int:
        """The number of trials."""
        return self.count or (full if self.full else quick)


def command_kills(workspace: Workspace, amount: Amount) -> dict[str, Any]:
    """SIGKILL before each call that changes a file."""
    return _each(workspace, amount, lambda trial: kill_at_calls(trial, amount.of(ALL_CALLS, 4)))


def command_errors(workspace: Workspace, amount: Amount) -> dict[str, Any]:
    """A full disk from each call on, and an I/O error at each call."""
    return _each(workspace, amount, lambda trial: fail_at_calls(trial, amount.of(ALL_CALLS, 4)))


def command_signals(workspace: Workspace, amount: Amount) -> dict[str, Any]:
    """SIGTERM and SIGINT at random moments."""
    return _each(workspace, amount, lambda trial: interrupt(trial, amount.of(40, 2), amount.seed))


def command_random(workspace: Workspace, amount: Amount) -> dict[str, Any]:
    """SIGKILL at random moments."""
    chosen = replace(amount, commands=amount.commands or KILLED_AT_RANDOM)
    return _each(workspace, chosen, lambda trial: kill_at_random(trial, amount.of(200, 5), amount.seed))


def command_writes(workspace: Workspace, amount: Amount) -> dict[str, Any]:
    """What each command changes outside its outputs."""
    commands = [item for item in recorded_commands(workspace) if not amount.commands or item.name in amount.commands]
    stray = {command.name: stray_writes(workspace, command) for command in commands}
    return {"commands": len(stray), "broken": [f"{name} changes {path}" for name in stray for path in stray[name]]}


COMMAND_PARTS: dict[str, Callable[[Workspace, Amount], dict[str, Any]]] = {
    "command_kills": command_kills,
    "command_errors": command_errors,
    "command_signals": command_signals,
    "command_random": command_random,
    "command_writes": command_writes,
}


def run_part(part: str, folder: Path, library: Path, amount: Amount) -> dict[str, Any]:
    """Runs a part in a new workspace; the results of each command, and all broken guarantees in `broken`."""
    workspace = Workspace(folder / part, library)
    try:
        return COMMAND_PARTS[part](workspace, amount)
    finally:
        workspace.close()


def _each(workspace: Workspace, amount: Amount, run: Callable[[CommandTrial], None]) -> dict[str, Any]:
    results: dict[str, Any] = {"broken": []}
    for scenario in SCENARIOS:
        if amount.commands and scenario.name not in amount.commands:
            continue
        trial = CommandTrial(scenario, workspace)
        trial.deadline = time.monotonic() + amount.seconds
        run(trial)
        results["broken"] += trial.counts.pop("broken")
        results[scenario.name] = {"calls": trial.calls, **trial.counts}
    return results
