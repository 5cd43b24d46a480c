"""Ranks are read from torchrun's environment variables."""

import pytest

from configs.errors import ConfigError
from configs.ranks import rank, restarts, world_size

VARIABLES = ("WORLD_SIZE", "RANK", "TORCHELASTIC_RESTART_COUNT", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def test_one_rank_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    assert (world_size(), rank(), restarts()) == (1, 0, 0)


def test_the_ranks_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in zip(VARIABLES, ("4", "3", "2", "1", "127.0.0.1", "29500"), strict=True):
        monkeypatch.setenv(variable, value)
    assert (world_size(), rank(), restarts()) == (4, 3, 2)


def test_a_variable_that_is_not_a_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "four")
    with pytest.raises(ConfigError, match="WORLD_SIZE is 'four'"):
        world_size()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"RANK": "3"}, ["RANK is '3'", "WORLD_SIZE is not set"]),
        ({"WORLD_SIZE": "2"}, ["WORLD_SIZE is '2'", "RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set"]),
        ({"RANK": "0", "WORLD_SIZE": "2"}, ["LOCAL_RANK"]),
        ({"LOCAL_RANK": "1"}, ["LOCAL_RANK is '1'", "RANK, WORLD_SIZE is not set"]),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, ["contradict"]),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, ["contradict"]),
        ({"RANK": "0", "WORLD_SIZE": "0"}, ["contradict"]),
    ],
)
def test_p7_incomplete_or_contradicting_ranks_are_refused_by_name(
    variables: dict[str, str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    for function in (rank, world_size):
        with pytest.raises(ConfigError) as refused:
            function()
        assert all(word in str(refused.value) for word in words)
