"""Kills, errors and signals at many points of a command; the trial counts them and collects broken guarantees."""

import errno
import signal

import numpy as np
from tqdm import tqdm

from tests.faults.commands.trial import CommandTrial
from tests.faults.trial import ALL, ALWAYS, ERROR, KILL_BEFORE, Fault


def kill_at_calls(trial: CommandTrial, most: int) -> None:
    """Kills the command before each call that changes a file, or before `most` of them."""
    for at in tqdm(trial.in_time(_points(trial.calls, most)), desc=f"kills: {trial.scenario.name}", disable=None):
        trial.under_fault(Fault(ALL, KILL_BEFORE, at))


def fail_at_calls(trial: CommandTrial, most: int) -> None:
    """Fails each call that changes a file, or `most` of them: a full disk for good, and one I/O error."""
    points = trial.in_time(_points(trial.calls, most))
    for number, at in enumerate(tqdm(points, desc=f"errors: {trial.scenario.name}", disable=None)):
        faults = (Fault(ALL, ERROR, at, errno.ENOSPC, ALWAYS), Fault(ALL, ERROR, at, errno.EIO))
        for fault in faults if most >= trial.calls else faults[number % 2 : number % 2 + 1]:
            trial.under_fault(fault)


def interrupt(trial: CommandTrial, count: int, seed: int = 0) -> None:
    """Sends SIGTERM and SIGINT by turns, at random moments."""
    for number, seconds in enumerate(trial.in_time(_moments(trial, count, seed))):
        trial.signalled(seconds, (signal.SIGTERM, signal.SIGINT)[number % 2])


def kill_at_random(trial: CommandTrial, count: int, seed: int = 0) -> None:
    """Sends SIGKILL at random moments."""
    moments = trial.in_time(_moments(trial, count, seed))
    for seconds in tqdm(moments, desc=f"random kills: {trial.scenario.name}", disable=None):
        trial.signalled(seconds)


def _points(calls: int, most: int) -> list[int]:
    """The numbers of the calls that fail: all, or `most` evenly spread ones with the first and the last."""
    return sorted({int(at) for at in np.linspace(1, calls, min(calls, most)).round()})


def _moments(trial: CommandTrial, count: int, seed: int) -> list[float]:
    """Uniform over the duration of the command."""
    return [float(value) for value in np.random.default_rng(seed).uniform(0, trial.seconds, count)]
