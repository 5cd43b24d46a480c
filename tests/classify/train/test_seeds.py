"""Several seeds that train together: the same numbers as alone, their statistics, and resuming."""

import io
from pathlib import Path

import numpy as np
import pytest

from classify.train.cached import train_cached
from classify.train.run import Run
from classify.train.seeds import train_seeds
from configs.process.console import console
from tests.classify.conftest import Interrupt
from tests.factories import IDENTITY, make_features, make_tables, read_history, small_config, train_head

pytestmark = pytest.mark.usefixtures("quick_baselines", "no_plots")


def test_seeds_report_mean_and_deviation(tmp_path: Path) -> None:
    features = make_features(make_tables())
    run = train_seeds(small_config(tmp_path / "r"), 3, lambda configs, _: train_cached(features, configs, IDENTITY))
    values = run.results["seeds"]["test_mpca"]["values"]
    assert run.results["seeds"]["test_mpca"]["mean"] == pytest.approx(np.mean(values))
    assert run.results["seeds"]["test_mpca"]["std"] == pytest.approx(np.std(values, ddof=1))
    assert run.results["best_val_mpca"] == max(run.results["seeds"]["best_val_mpca"]["values"])


@pytest.mark.parametrize("step", ["fused", "autograd"])
def test_r16_each_seed_has_a_log_of_its_own(tmp_path: Path, step: str) -> None:
    features = make_features(make_tables())
    configs = [small_config(tmp_path / f"s{seed}", seed=seed) for seed in (7, 8)]
    stream = io.StringIO()
    with console(stream):
        train_cached(features, configs, IDENTITY, step=step)
    logs = {seed: (tmp_path / f"s{seed}/training.log").read_text().splitlines() for seed in (7, 8)}
    for seed, other in ((7, 8), (8, 7)):
        own = [line for line in logs[seed] if line.startswith(f"[seed {seed}] ")]
        assert sum("Val Epoch" in line for line in own) == 3
        assert sum("Test, best model" in line for line in own) == 1
        assert not [line for line in logs[seed] if f"[seed {other}]" in line]
        assert "RESNET STAGE2 CONFIGURATION" in logs[seed]
        assert any(line.startswith("Pairs per class:") for line in logs[seed])
    lines = stream.getvalue().splitlines()
    assert {"[seed 7]", "[seed 8]"} <= {line[:8] for line in lines}  # the console has all


def test_heads_trained_together_equal_those_trained_alone(tmp_path: Path) -> None:
    features = make_features(make_tables(), signal=1.0)
    settings = {"epochs": 12, "patience": 3, "balance": "sampler"}  # some stop earlier than others
    together = train_cached(
        features, [small_config(tmp_path / f"t{seed}", seed=seed, **settings) for seed in range(5)], IDENTITY
    )
    for seed, run in enumerate(together):
        alone = train_head(features, small_config(tmp_path / f"a{seed}", seed=seed, **settings))
        assert len(read_history(run.folder)) == len(read_history(alone.folder))
        for one, other in zip(read_history(run.folder), read_history(alone.folder), strict=True):
            assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)
            assert one["val_mpca"] == pytest.approx(other["val_mpca"], abs=0.05)
    assert len({len(read_history(run.folder)) for run in together}) > 1


def test_seeds_continue_after_an_interruption_between_two_of_them(
    tmp_path: Path, interrupt_after_saves: Interrupt
) -> None:
    features = make_features(make_tables())

    def start(folder: Path) -> list[Run]:
        configs = [small_config(folder / str(seed), seed=seed, epochs=5) for seed in range(3)]
        return train_cached(features, configs, IDENTITY, resume=True)

    whole = start(tmp_path / "whole")
    with interrupt_after_saves(8), pytest.raises(KeyboardInterrupt):  # the third epoch of the second seed
        start(tmp_path / "cut")
    for resumed, expected in zip(start(tmp_path / "cut"), whole, strict=True):
        losses = [[record["train_loss"] for record in read_history(run.folder)] for run in (resumed, expected)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_seeds_by_autograd_equal_those_trained_alone(tmp_path: Path) -> None:
    features = make_features(make_tables())
    configs = [small_config(tmp_path / f"t{seed}", seed=seed) for seed in range(2)]
    together = train_cached(features, configs, IDENTITY, step="autograd")
    for seed, run in enumerate(together):
        alone = train_head(features, small_config(tmp_path / f"a{seed}", seed=seed), step="autograd")
        assert read_history(run.folder) == read_history(alone.folder)
