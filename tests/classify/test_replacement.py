"""A run is replaced when the new one has a checkpoint; a kill leaves the earlier run or the new one, whole."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from classify.model.checkpoint import load_checkpoint
from classify.open_run import open_run_folder
from classify.replacement import CLEARING, MOVING, find_run, replace_earlier_run
from classify.report.results import read_results
from classify.run_folder import STAGING, RunFolder
from classify.train.cached import train_cached
from classify.train.run import Run
from classify.train.seeds import train_seeds
from configs.errors import ConfigError, DataError, LockedError
from configs.resnet_stage2_config import ResNetStage2Config
from store.files import exclusive_lock
from tests.classify.conftest import Interrupt
from tests.factories import IDENTITY, make_features, make_tables, small_config, train_head

pytestmark = pytest.mark.usefixtures("quick_baselines", "no_plots")
FEATURES = make_features(make_tables(frames=2))


def train(folder: Path, seeds: int = 1, overwrite: bool = False, resume: bool = False, **settings: object) -> Run:
    config = small_config(folder, **{"epochs": 2} | settings)
    if seeds == 1:
        return train_head(FEATURES, config, overwrite=overwrite, resume=resume)

    def train_all(configs: list[ResNetStage2Config], parent: RunFolder) -> list[Run]:
        return train_cached(FEATURES, configs, IDENTITY, overwrite=overwrite, resume=resume, parent=parent)

    return train_seeds(config, seeds, train_all, overwrite=overwrite, resume=resume)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("seeds", [(1, 1), (1, 2), (3, 1), (3, 2)])
def test_w5_the_earlier_run_is_unchanged_until_the_new_one_has_a_checkpoint(
    tmp_path: Path, seeds: tuple[int, int], interrupt_at_step: Interrupt, interrupt_after_saves: Interrupt
) -> None:
    run = tmp_path / "r"
    train(run, seeds[0])
    (run / "mine.txt").write_text("mine")
    before = content(run)
    with interrupt_at_step(2), pytest.raises(KeyboardInterrupt) as error:
        train(run, seeds[1], overwrite=True, learning_rate=1e-3)
    assert content(run) == before
    assert "is unchanged" in error.value.__notes__[0]
    with interrupt_after_saves(1), pytest.raises(KeyboardInterrupt):
        train(run, seeds[1], overwrite=True, learning_rate=1e-3)
    assert not (run / "final_results.json").exists()
    after = content(run)
    assert after["mine.txt"] == b"mine"
    first = run if seeds[1] == 1 else run / "seed-42"
    assert load_checkpoint(first / "last.pth", resume=True).info.config.learning_rate == 1e-3
    resumed = train(run, seeds[1], resume=True, learning_rate=1e-3)
    assert resumed.results["epochs_run"] == 2
    assert not [name for name in content(run) if name.startswith(".stage2-") and name != ".stage2-run"]


def test_w5_a_kill_during_the_replacement_leaves_the_earlier_or_the_new_run(tmp_path: Path) -> None:
    """Each rename and each removal in turn is the last thing that the process does."""
    calls = 1
    while killed_in_replacement(tmp_path / str(calls), calls):
        calls += 1
    assert calls > 40


def killed_in_replacement(run: Path, calls: int) -> bool:
    """Replaces a run of three seeds, with a kill; checks what is left, and returns whether there was a kill."""
    with open_run_folder(small_config(run)) as folder:
        for name in ("config", "log", "metrics", "best_model", "last", "results", "comparison_row"):
            getattr(folder, name).write_text("old")
        for seed in (1, 2, 3):
            with open_run_folder(small_config(folder.seed(seed).home), parent=folder) as child:
                child.best_model.write_text("old")
    old = content(run)
    (run / "seed-2" / "mine.txt").write_text("mine")
    new = dict.fromkeys(("config.json", "training.log", "metrics.jsonl", "best_model.pth", "last.pth"), b"new")
    new |= {"seed-1/last.pth": b"new", ".stage2-run": old[".stage2-run"], "seed-1/.stage2-run": old[".stage2-run"]}
    killed = True
    with (
        pytest.MonkeyPatch.context() as patch,
        suppress(KeyboardInterrupt),
        open_run_folder(small_config(run), overwrite=True) as folder,
    ):
        for name in ("config", "log", "metrics", "best_model", "last"):
            getattr(folder, name).write_text("new")
        with open_run_folder(small_config(folder.seed(1).home), parent=folder) as child:
            child.last.write_text("new")
        kill_at(calls, patch)
        replace_earlier_run(folder)
        killed = False
    found, left = find_run(run), content(run)
    assert left.pop("seed-2/mine.txt") == b"mine"
    staged = {name: left.pop(name) for name in list(left) if name.startswith(STAGING)}
    assert left == (old if staged else new)
    assert bool(staged) == (calls == 1)
    assert found.best_model.read_bytes() == (b"old" if staged else b"new")
    with open_run_folder(
        small_config(run), resume=True, seeds=(1, 2, 3) if staged else (1, 3)
    ):  # which removes what is stale
        assert not [path for path in run.iterdir() if path.name in (STAGING, CLEARING, MOVING)]
    return killed


def kill_at(calls: int, patch: pytest.MonkeyPatch) -> None:
    """From the given rename or removal on, every call fails, as if the process had been killed before it."""
    count = 0

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count >= calls:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return call

    for name in ("rename", "unlink", "rmdir"):
        patch.setattr(Path, name, counted(getattr(Path, name)))


def test_w5_a_stale_staged_run_is_removed_and_foreign_files_in_it_are_kept(tmp_path: Path) -> None:
    run = tmp_path / "r"
    train(run)
    before = content(run)
    (run / STAGING / "seed-7").mkdir(parents=True)
    (run / STAGING / "config.json").write_text("stale")
    (run / STAGING / "seed-7" / ".stage2-run").write_bytes(before[".stage2-run"])
    (run / STAGING / "seed-7" / "last.pth").write_text("stale")
    train(run, resume=True)
    assert not (run / STAGING).exists()
    (run / STAGING).mkdir()
    (run / STAGING / "mine.txt").write_text("mine")
    train(run, overwrite=True)
    assert (run / "mine.txt").read_text() == "mine"


def test_w5_a_run_is_not_read_while_it_is_replaced(tmp_path: Path) -> None:
    run = tmp_path / "r"
    train(run)
    (run / CLEARING).mkdir()
    with exclusive_lock(run / ".stage2-run"), pytest.raises(LockedError):
        read_results(run)
    (run / CLEARING / "config.json").write_text("new")
    with pytest.raises(DataError, match="does not contain a finished run"):
        read_results(run)
    assert (run / "config.json").read_text() == "new"


def test_w4_the_seeds_of_a_run_that_is_trained_are_not_replaced(tmp_path: Path) -> None:
    train(tmp_path / "r", 2)
    before = content(tmp_path / "r")
    with exclusive_lock(tmp_path / "r" / "seed-43" / ".stage2-run"), pytest.raises(LockedError):
        train(tmp_path / "r", overwrite=True)
    assert content(tmp_path / "r") == before


def test_r14_fewer_seeds_leave_no_folders_of_earlier_seeds(tmp_path: Path) -> None:
    train(tmp_path / "r", 4)
    train(tmp_path / "r", 2, overwrite=True)
    assert sorted(path.name for path in (tmp_path / "r").glob("seed-*")) == ["seed-42", "seed-43"]
    train(tmp_path / "r", overwrite=True)
    assert not list((tmp_path / "r").glob("seed-*"))


def test_r14_the_log_goes_on_after_the_replacement(tmp_path: Path) -> None:
    for _ in range(2):
        train(tmp_path / "r", overwrite=True)
        log = (tmp_path / "r" / "training.log").read_text()
        assert [log.count(text) for text in ("Val Epoch 1", "Val Epoch 2", "Test, best model")] == [1, 1, 1]


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_w3_what_is_in_the_place_of_a_seeds_folder_is_not_changed(tmp_path: Path, kind: str) -> None:
    train(tmp_path / "other")
    train(tmp_path / "r")
    seed = tmp_path / "r" / "seed-43"
    if kind == "link":
        seed.symlink_to(tmp_path / "other")
    else:
        (seed if kind == "file" else seed / "config.json").parent.mkdir(exist_ok=True)
        (seed if kind == "file" else seed / "config.json").write_text("mine")
    before = content(tmp_path)
    with pytest.raises(ConfigError, match="seed-43 is a link, or was not made for a seed"):
        train(tmp_path / "r", 2, overwrite=True)
    assert content(tmp_path) == before
    train(tmp_path / "r", overwrite=True)  # of one seed, to which that folder is nothing
    left = content(tmp_path)
    assert {name: left[name] for name in left if not name.startswith("r/")} == {
        name: before[name] for name in before if not name.startswith("r/")
    }
    assert (
        seed.is_symlink()
        if kind == "link"
        else "mine" in left.get("r/seed-43", left.get("r/seed-43/config.json", b"")).decode()
    )


def test_w5_a_restart_by_torchrun_begins_again_unless_the_run_was_replaced(tmp_path: Path) -> None:
    run = tmp_path / "r"
    train(run)
    for staged in (True, False):
        (run / STAGING).mkdir() if staged else None
        with open_run_folder(small_config(run), overwrite=True, resume=True) as folder:
            assert folder.staged == staged
            assert (run / "last.pth").exists()


def test_r14_a_finished_run_of_several_seeds_resumes_as_one_seed_does(tmp_path: Path) -> None:
    first = train(tmp_path / "r", 2).results
    again = train(tmp_path / "r", 2, resume=True).results
    assert again["seeds"] == first["seeds"]
    assert "The run has finished: its last epoch is 2." in (tmp_path / "r" / "seed-43" / "training.log").read_text()
    more = train(tmp_path / "r", 3, resume=True).results["seeds"]
    assert more["count"] == 3
    assert more["test_mpca"]["values"][:2] == first["seeds"]["test_mpca"]["values"]


def test_r14_another_kind_of_run_is_not_resumed(tmp_path: Path) -> None:
    train(tmp_path / "one")
    train(tmp_path / "many", 3)
    before = content(tmp_path)
    with pytest.raises(ConfigError, match="holds a run of one seed; leave out --seeds"):
        train(tmp_path / "one", 3, resume=True)
    with pytest.raises(ConfigError, match="holds a run of 3 seeds from 42 on; give --seeds 3 --seed 42"):
        train(tmp_path / "many", resume=True)
    with pytest.raises(ConfigError, match=r"the seed 44, which is not among the 2 seeds from 42 on; give --seeds 3"):
        train(tmp_path / "many", 2, resume=True)
    with pytest.raises(ConfigError, match=r"the seed 42, which is not among the 3 seeds from 43 on"):
        train(tmp_path / "many", 3, resume=True, seed=43)
    assert content(tmp_path) == before


def test_the_folder_of_a_new_run_is_written_directly(tmp_path: Path) -> None:
    with open_run_folder(small_config(tmp_path / "r"), overwrite=True) as folder:
        assert folder.path == tmp_path / "r"
        assert [path.name for path in folder.path.iterdir()] == [".stage2-run"]
