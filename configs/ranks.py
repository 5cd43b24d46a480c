"""Which of several processes this is, as torchrun says in the environment."""

import os


def ranks() -> int:
    """How many processes train together; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number among them; 0 is the one that writes, logs and prints."""
    return int(os.environ.get("RANK", "0"))


def restarts() -> int:
    """How often torchrun has started the processes again, after one of them had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
