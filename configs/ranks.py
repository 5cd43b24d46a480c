"""The ranks of a distributed run, from the environment that torchrun sets. Standard library only.

A run without torchrun has one rank, 0. `classify/distributed.py` makes the ranks work together.
"""

import os

from configs.errors import ConfigError

_TORCHRUN = ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # also needed by several processes


def world_size() -> int:
    """The number of processes that train together; 1 without torchrun."""
    return _ranks()[1]


def rank() -> int:
    """This process's rank, in [0, world_size). Only rank 0 logs, prints and writes files."""
    return _ranks()[0]


def restarts() -> int:
    """How often torchrun has restarted the processes after a failure."""
    return _integer("TORCHELASTIC_RESTART_COUNT", 0)


def _ranks() -> tuple[int, int]:
    """(rank, world size). Raises ConfigError unless all of torchrun's variables are there and fit together."""
    number, size, local = _integer("RANK", 0), _integer("WORLD_SIZE", 1), _integer("LOCAL_RANK", 0)
    names = ("RANK", "WORLD_SIZE", *(_TORCHRUN if size > 1 else ()))
    given = [name for name in names if os.environ.get(name)]
    missing = [name for name in names if not os.environ.get(name)]
    if (given and missing) or (os.environ.get("LOCAL_RANK") and "RANK" in missing):
        there = given[0] if given else "LOCAL_RANK"
        raise ConfigError(
            f"the environment variable {there} is {os.environ[there]!r}, but {', '.join(missing)} is not set; start "
            f"several processes with torchrun, or unset {there}"
        )
    if size < 1 or number >= size or local > number:
        raise ConfigError(
            f"the environment variables RANK={number}, WORLD_SIZE={size} and LOCAL_RANK={local} contradict each other; "
            f"start several processes with torchrun, or unset them"
        )
    return number, size


def _integer(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    if not text:
        return default
    if not text.isdecimal():
        raise ConfigError(f"the environment variable {variable} is {text!r}; it must be an integer, or unset")
    return int(text)
