"""An end-to-end run is resumed only on the images and annotations that it was started with."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from classify.data.crops import FrameCrops
from classify.model.checkpoint import load_checkpoint
from classify.train.end_to_end import train_end_to_end
from configs.errors import CheckpointError
from store.tables import Tables
from tests.classify.conftest import Interrupt
from tests.factories import IDENTITY, TinyBackbone, make_tables, read_history, small_config, write_images

pytestmark = pytest.mark.usefixtures("quick_baselines", "no_plots")


def train(folder: Path, tables: Tables, paths: list[Path]) -> None:
    """Trains a run in `folder`, or resumes it."""
    torch.manual_seed(0)
    config = small_config(folder, epochs=2)
    crops = FrameCrops(tables, paths, config.crop_size)
    train_end_to_end(tables, crops, TinyBackbone(), config, IDENTITY, resume=True)  # type: ignore[arg-type]


@pytest.fixture
def tables() -> Tables:
    return make_tables(frames=2)


@pytest.fixture
def interrupted(tmp_path: Path, tables: Tables, interrupt_after_saves: Interrupt) -> Path:
    """A run that was interrupted after its first epoch; its images are in tmp_path/data."""
    with interrupt_after_saves(1), pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", tables, write_images(tables, tmp_path / "data"))
    return tmp_path / "run"


def paths_in(folder: Path, tables: Tables) -> list[Path]:
    names = zip(tables.frame_scene, tables.frame_name, strict=True)
    return [folder / tables.scenes[scene] / str(name) for scene, name in names]


def test_r6_a_replaced_image_is_refused_and_its_scene_named(interrupted: Path, tmp_path: Path, tables: Tables) -> None:
    before = (interrupted / "last.pth").read_bytes()
    paths = paths_in(tmp_path / "data", tables)
    data = bytearray(paths[2].read_bytes())  # of scene "b"
    data[-10] ^= 1
    paths[2].write_bytes(data)  # the same name and size
    with pytest.raises(CheckpointError, match=r"other images or annotations of b; .*--data_path"):
        train(interrupted, tables, paths)
    assert (interrupted / "last.pth").read_bytes() == before


@pytest.mark.parametrize("column", ["box", "spatial", "person_id", "label"])
def test_r6_other_annotations_are_refused(interrupted: Path, tmp_path: Path, tables: Tables, column: str) -> None:
    values = getattr(tables, column).copy()
    values[:2] = (values[:2] + 1) % 3 if column == "label" else values[:2] + 1
    other = replace(tables, **{column: values})
    with pytest.raises(CheckpointError, match="other images or annotations of a;"):
        train(interrupted, other, paths_in(tmp_path / "data", tables))


def test_moved_data_is_accepted(interrupted: Path, tmp_path: Path, tables: Tables) -> None:
    shutil.move(tmp_path / "data", tmp_path / "moved")
    train(interrupted, tables, paths_in(tmp_path / "moved", tables))
    assert len(read_history(interrupted)) == 2


def test_r6_a_checkpoint_without_digests_is_refused(interrupted: Path, tmp_path: Path, tables: Tables) -> None:
    content = torch.load(interrupted / "last.pth", weights_only=True)
    assert content.pop("data").keys() == {"a", "b", "c", "d"}
    torch.save(content, interrupted / "last.pth")  # as an earlier version wrote it
    assert load_checkpoint(interrupted / "last.pth", resume=True).info.data == {}
    with pytest.raises(CheckpointError, match=r"does not say which data .* `stage2 finetune --from`"):
        train(interrupted, tables, paths_in(tmp_path / "data", tables))
