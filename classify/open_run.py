"""Checks and opens the folder in which a run is trained, without replacing another run by accident."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from classify.replacement import complete_replacement, discard_staged, remove_run, stage
from classify.run_folder import ROOT, STAGING, RunFolder
from configs.errors import ConfigError
from configs.process.failures import resume_advice
from configs.ranks import rank, world_size
from configs.resnet_stage2_config import ResNetStage2Config
from configs.train_options import TrainOptions
from extract.annotations.jrdb import IMAGES, LABELS
from extract.backbones.weights import WITHOUT_FILE
from store.files import exclusive_lock, make_new_folder, remove_temporary_files
from store.find import STORES
from store.outputs import claim_folder, is_inside
from store.ownership import RUN, is_unused, own_folder


def check_run_folder(config: ResNetStage2Config, options: TrainOptions) -> None:
    """Checks, before anything is computed, that a run may be written to `checkpoint_dir`.

    Raises:
        ConfigError: see `check_content`; or the folder has files and is not a run's; it is inside an input, or an input
            that the command still needs is inside it; or several ranks train without a `checkpoint_dir`, which they
            need to find the same folder, also after a restart.
    """
    if world_size() > 1 and not config.checkpoint_dir:
        raise ConfigError("training with several processes needs a common run folder; give --checkpoint_dir")
    if rank() > 0 or not config.checkpoint_dir:
        return
    folder, data = RunFolder(Path(config.checkpoint_dir)), Path(config.data_path)
    weights = () if config.weights in WITHOUT_FILE else (Path(config.weights),)
    start = (Path(options.start),) if options.start else ()
    inputs = (data / IMAGES.parts[0], data / LABELS.parts[0], Path(options.store) if options.store else STORES, *start)
    if folder.home.resolve() == data.resolve():
        raise ConfigError(f"{folder.home} is the data folder, an input; name another --checkpoint_dir")
    _claim(folder, inputs)
    for path in (*inputs, *weights):
        if is_inside(path, folder.home) and (options.overwrite or not folder.is_run()):
            raise ConfigError(
                f"{path}, an input, is inside the run folder {folder.home}; name another --checkpoint_dir"
            )
    seeds = range(config.seed, config.seed + options.seeds) if options.seeds > 1 else ()
    check_content(folder, options.overwrite, options.resume, seeds)


def _claim(folder: RunFolder, inputs: Collection[Path] = ()) -> None:
    claim_folder(folder.home, inputs=inputs)
    if not folder.is_run() and not is_unused(folder.marker, RUN):
        raise ConfigError(
            f"{folder.home} has files but is not a run folder (it has no {folder.marker.name}); choose another "
            f"--checkpoint_dir"
        )


def check_content(folder: RunFolder, overwrite: bool, resume: bool, seeds: Collection[int]) -> None:
    """Checks that a run may be started, or with `resume` continued, in view of what the folder holds.

    Args:
        seeds: of a run with several seeds; else empty.

    Raises:
        ConfigError: the folder holds a run that would be replaced without `overwrite`, or another kind of run than
            the one to continue: of one seed instead of several or the reverse, or of seeds that are not in `seeds`; or
            there is something else in the place of a seed's folder.
    """
    for seed in map(folder.seed, seeds):
        if seed.path.is_symlink() or not (seed.is_run() or is_unused(seed.marker, RUN)):
            raise ConfigError(f"{seed.path} is a link, or was not made for a seed; choose another --checkpoint_dir")
    if resume and folder.can_continue():
        _check_seeds(folder, sorted(folder.seeds()), seeds)
        return
    died_in_first_epoch = resume and not folder.results.exists()  # there is no finished epoch to lose
    if folder.holds_run() and not overwrite and not died_in_first_epoch:
        raise ConfigError(
            f"{folder.home} already holds a run; give --resume auto to continue it, --overwrite to "
            f"replace it, or another --checkpoint_dir"
        )


def _check_seeds(folder: RunFolder, existing: list[int], wanted: Collection[int]) -> None:
    """Seeds may be added to a run of several seeds, but none may be left out."""
    other = "or give another --checkpoint_dir"
    if existing and not wanted:
        raise ConfigError(
            f"{folder.home} holds a run of {len(existing)} seeds from {existing[0]} on; give --seeds {len(existing)} "
            f"--seed {existing[0]} to continue it, {other}"
        )
    if wanted and not existing:
        raise ConfigError(f"{folder.home} holds a run of one seed; leave out --seeds to continue it, {other}")
    missing = [seed for seed in existing if seed not in wanted]
    if missing:
        raise ConfigError(
            f"{folder.home} holds a run with the seed {missing[0]}, which is not among the {len(wanted)} seeds from "
            f"{min(wanted)} on; give --seeds {existing[-1] - existing[0] + 1} --seed {existing[0]}, or more seeds, to "
            f"continue it, {other}"
        )


@contextmanager
def open_run_folder(
    config: ResNetStage2Config,
    overwrite: bool = False,
    resume: bool = False,
    *,
    seeds: Collection[int] = (),
    parent: RunFolder | None = None,
) -> Iterator[RunFolder]:
    """Locks the folder of a run: `checkpoint_dir`, or a new numbered folder under checkpoints/.

    With `resume`, a folder with an epoch to continue from is used as it is. With `overwrite`, an earlier run in it is
    replaced when the new one has a checkpoint, see `classify.replacement`. Other files in the folder are kept. Ranks
    other than 0 do not write, and neither lock nor change the folder.

    Args:
        seeds: of a run with several seeds, which are trained in folders of their own; else empty.
        parent: the open folder of all seeds, if `config` is one of them.

    Raises:
        ConfigError: see `check_content`; or the folder has files and is not a run's.
        LockedError: another job is training in the folder.
        StorageError: the folder cannot be created.
    """
    folder = RunFolder(Path(config.checkpoint_dir), parent)
    if rank() > 0:
        yield folder
        return
    if not config.checkpoint_dir:
        folder = _create_numbered(config)
    elif parent is None:
        _claim(folder)
        check_content(folder, overwrite, resume, seeds)
    with ExitStack() as locks:
        locks.enter_context(own_folder(folder.marker, RUN))
        _prepare(folder, overwrite, resume, seeds, locks)
        try:
            yield folder
        finally:
            if folder.staged:
                discard_staged(folder.home)


def _prepare(folder: RunFolder, overwrite: bool, resume: bool, seeds: Collection[int], locks: ExitStack) -> None:
    """Makes the locked folder ready for the run: continued, staged beside an earlier run, or empty."""
    interrupted_overwrite = overwrite and (folder.home / STAGING).is_dir()  # torchrun restarts it with `resume`
    resume = resume and not interrupted_overwrite
    if folder.parent is None:
        complete_replacement(folder.home)
        discard_staged(folder.home)
        check_content(
            folder, overwrite, resume, seeds
        )  # again, because the folder may have changed before it was locked
    if resume and folder.can_continue():
        for path in folder.files:
            remove_temporary_files(path)
    elif folder.parent is None and folder.is_usable():
        for seed in folder.seeds().values():
            locks.enter_context(exclusive_lock(seed.marker))
        stage(folder)
    else:
        remove_run(folder)


def continue_advice(folder: RunFolder, epoch: int | None = None, options: str = "") -> str:
    """The advice for an interrupted run; `epoch` and `options` as for `resume_advice`."""
    top = folder.parent or folder
    if top.staged:
        return (
            f"before the end of the first epoch; the earlier run in {top.home} is unchanged: run the same command again"
        )
    return resume_advice(folder.home, epoch, options)


def _create_numbered(config: ResNetStage2Config) -> RunFolder:
    """Creates the next free numbered folder; mkdir decides between runs that start at the same time."""
    frozen = "_frozen" if config.freeze_backbone else ""
    name = f"{config.backbone_name}{frozen}_{config.fusion_strategy}_{config.visual_feature_dim}d"
    number = 1
    while not make_new_folder(ROOT / f"{name}-{number:03d}"):
        number += 1
    return RunFolder(ROOT / f"{name}-{number:03d}")
