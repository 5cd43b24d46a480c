"""Runs a command under a fault, checks what it has left, and runs it again as its user would."""

import hashlib
import json
import signal
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tests.faults.commands.scenarios import Arguments, Scenario
from tests.faults.commands.whole import faulty_files, is_temporary, mixed_runs
from tests.faults.commands.workspace import Result, Workspace
from tests.faults.trial import ERROR, KILLED, STORAGE_ERROR, Fault

STOPPED = 97  # see `tests.faults.commands.server`
INTERRUPTED = {signal.SIGINT: 130, signal.SIGTERM: 143}
REFUSED = {1, 2, 4, 75}  # exit codes of refusals
ADVICE = (("--resume auto", ("--resume", "auto")), ("--overwrite", ("--overwrite",)))

Point = TypeVar("Point")


@dataclass
class CommandTrial:
    """Trials of one command. `reference` is the content of its outputs without a fault."""

    scenario: Scenario
    workspace: Workspace
    references: int = 2  # undisturbed runs, which must agree
    deadline: float = float("inf")  # of `in_time`, by time.monotonic
    reference: Any = None
    known: frozenset[str] = frozenset()  # sha256 of the files of an undisturbed run and of those before it
    calls: int = 0
    seconds: float = 0.0
    counts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        results, known = [], set()
        for _ in range(self.references):
            self._prepare()
            known |= {hashlib.sha256(path.read_bytes()).hexdigest() for path in self.workspace.outputs()}
            results.append(self.workspace.run(*self.arguments))
            assert results[-1].status == 0, (self.scenario.name, results[-1])
            known |= {hashlib.sha256(path.read_bytes()).hexdigest() for path in self.workspace.outputs()}
            content = self.scenario.content(self.out)
            assert self.reference in (None, content), f"two runs of {self.scenario.name} differ"
            self.reference = content
        self.known, self.calls = frozenset(known), results[-1].calls
        self.seconds = statistics.mean(result.seconds for result in results)
        broken = self._broken_files()
        assert broken == [], broken
        self.counts = {"runs": 0, "ended": {}, "recovered": {}, "temporary_files": 0, "broken": []}

    @property
    def arguments(self) -> Arguments:
        """The command line."""
        return self.scenario.arguments(self.workspace)

    @property
    def out(self) -> Path:
        """The folder with the outputs."""
        return self.workspace.trial / "out"

    def in_time(self, points: Iterable[Point]) -> Iterator[Point]:
        """The points of the trials to run, until the deadline."""
        for point in points:
            if time.monotonic() > self.deadline:
                return
            yield point

    def under_fault(self, fault: Fault) -> None:
        """One trial with a fault inside the command."""
        self._prepare()
        result = self.workspace.run(*self.arguments, fault=fault)
        broken = self._check_error(result) if fault.kind == ERROR else []
        if fault.kind != ERROR and result.status != KILLED:
            broken.append(f"was not killed: {result}")
        self._finish(str(fault), result, broken)

    def signalled(self, seconds: float, number: int = signal.SIGKILL) -> None:
        """One trial with a signal from outside after `seconds`."""
        self._prepare()
        result = self.workspace.signal(*self.arguments, seconds=seconds, number=number)
        broken = [] if number == signal.SIGKILL else self._check_interrupt(result, number)
        if number == signal.SIGKILL and result.status not in (0, KILLED):
            broken.append(f"ended with {result.status}: {result.error[-500:]}")
        self._finish(f"{signal.Signals(number).name} after {seconds:.3f} s", result, broken)

    def _prepare(self) -> None:
        self.workspace.reset()
        self.scenario.prepare(self.workspace)

    def _finish(self, name: str, result: Result, broken: list[str]) -> None:
        broken += self._broken_files()
        if result.status == 0 and not self._is_complete():
            broken.append("ended with exit code 0, but the outputs are not those of an undisturbed run")
        how = self._recover(broken)
        counts = self.counts
        counts["runs"] += 1
        counts["ended"][str(result.status)] = counts["ended"].get(str(result.status), 0) + 1
        counts["recovered"][how] = counts["recovered"].get(how, 0) + 1
        counts["temporary_files"] += bool(self._temporary_files())
        counts["broken"] += [f"{self.scenario.name}, {name}: {text}" for text in broken]

    def _recover(self, broken: list[str]) -> str:
        """Runs the command again, and follows the advice if it is refused; returns how it ended."""
        more: Arguments = self.scenario.resume if self.counts["runs"] % 2 else ()  # with and without --resume auto
        for _ in range(3):
            again = self.workspace.run(*self.arguments, *more)
            advice = [options for text, options in ADVICE if text in again.error and options != more]
            if again.status not in REFUSED or not advice:
                break
            more = advice[0]
        complete = self._is_complete()
        if again.status != 0 and not (complete and again.status in REFUSED):
            broken.append(f"the same command again ended with {again.status}: {again.error[-500:]}")
        elif not complete:
            broken.append(f"the same command again ({' '.join(map(str, more))}) gives other outputs")
        broken += self._broken_files() + self._sentence(again)
        return " ".join(map(str, more)) or ("same command" if again.status == 0 else "already complete")

    def _is_complete(self) -> bool:
        try:
            return bool(self.scenario.content(self.out) == self.reference)
        except (OSError, ValueError, KeyError):
            return False

    def _broken_files(self) -> list[str]:
        paths = self.workspace.outputs()
        changed = [f"{name} of the user was changed" for name in self.workspace.changed_user_files()]
        return changed + faulty_files(paths, self.known) + mixed_runs(paths)

    def _temporary_files(self) -> list[str]:
        return [str(path) for path in self.workspace.outputs() if is_temporary(path)]

    def _check_error(self, result: Result) -> list[str]:
        """An injected error ends the command with exit code 74 and one sentence, or changes nothing in its outputs."""
        broken = [f"a temporary file is left: {name}" for name in self._temporary_files()]
        if result.status not in (0, STORAGE_ERROR):
            broken.append(f"ended with {result.status}: {result.error[-500:]}")
        return broken + self._sentence(result)

    def _check_interrupt(self, result: Result, number: int) -> list[str]:
        """A signal ends the command with its exit code and one sentence, unless it comes before or after it."""
        broken = [f"a temporary file is left: {name}" for name in self._temporary_files()]
        if result.status not in (0, INTERRUPTED[signal.Signals(number)], STOPPED, -number):
            broken.append(f"ended with {result.status}: {result.error[-500:]}")
        if result.status in (STOPPED, -number) and self.workspace.outputs() and not self._is_complete():
            broken.append("was ended without cleaning up")
        return broken + self._sentence(result)

    def _sentence(self, result: Result) -> list[str]:
        """What is wrong with what a command says: one sentence, no traceback, and with --json an object."""
        broken = [f"a traceback: {result.error[-1500:]}"] if "Traceback" in result.error else []
        if result.status <= 0 or result.status == STOPPED:
            return broken
        lines = [line for line in result.error.splitlines() if line.startswith(("error: ", "interrupted"))]
        if len(lines) != 1 or "unexpected" in lines[0]:
            broken.append(f"ended with {result.status} and says {lines or result.error[-500:]}")
        if "--json" in self.arguments:
            answer = json.loads(result.out)
            if answer.get("exit_code") != result.status or answer.get("error") not in result.error:
                broken.append(f"ended with {result.status}, but prints {answer}")
        return broken
