"""The ranks of a distributed run, from the environment that torchrun sets. Standard library only.

A run without torchrun has one rank, 0. `classify/distributed.py` makes the ranks work together.
"""

import os

from configs.errors import ConfigError


def world_size() -> int:
    """The number of processes that train together; 1 without torchrun."""
    return _integer("WORLD_SIZE", 1)


def rank() -> int:
    """This process's rank, in [0, world_size). Only rank 0 logs, prints and writes files."""
    return _integer("RANK", 0)


def restarts() -> int:
    """How often torchrun has restarted the processes after a failure."""
    return _integer("TORCHELASTIC_RESTART_COUNT", 0)


def _integer(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    if not text:
        return default
    if not text.isdecimal():
        raise ConfigError(f"the environment variable {variable} is {text!r}; it must be an integer, or unset")
    return int(text)
