"""Ranks are read from torchrun's environment variables."""

import pytest

from configs.errors import ConfigError
from configs.ranks import rank, restarts, world_size

VARIABLES = ("WORLD_SIZE", "RANK", "TORCHELASTIC_RESTART_COUNT")


def test_one_rank_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert (world_size(), rank(), restarts()) == (1, 0, 0)


def test_the_ranks_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in zip(VARIABLES, ("4", "3", "2"), strict=True):
        monkeypatch.setenv(variable, value)
    assert (world_size(), rank(), restarts()) == (4, 3, 2)


def test_a_variable_that_is_not_a_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "four")
    with pytest.raises(ConfigError, match="WORLD_SIZE is 'four'"):
        world_size()
