"""The digests of a run's data do not depend on where its crops come from."""

from pathlib import Path

import pytest

from classify.data.identity import data_digests
from classify.data.inputs import open_training_crops
from classify.data.selection import select_splits
from configs.resnet_stage2_config import ResNetStage2Config
from configs.splits import JRDB_SPLIT
from configs.train_options import TrainOptions
from extract.backbones.weights import load_backbone
from extract.images.identity import image_identity
from store.files import sha256
from tests.jobs import extract_store
from tests.jrdb_folder import write_folder

SCENES = (JRDB_SPLIT.train[0], JRDB_SPLIT.val[0], JRDB_SPLIT.test[0])


@pytest.mark.parametrize("interval", [1, 2])
def test_images_and_stored_crops_have_the_same_digests(tmp_path: Path, interval: int) -> None:
    data, store = write_folder(tmp_path / "data", SCENES, frames=4, people=6), tmp_path / "a.store"
    extract_store(load_backbone("resnet18", "random"), data, store, crops=True)
    config = ResNetStage2Config(crop_size=32, data_path=str(data), frame_interval=interval)
    digests = []
    for path in ("", str(store)):
        data_of_run = open_training_crops(config, TrainOptions(store=path))
        tables = data_of_run.tables
        digests.append(data_digests(tables, select_splits(tables, config), data_of_run.crops))
    assert digests[0] == digests[1]
    assert digests[0].keys() == set(SCENES)


def test_an_image_is_identified_by_its_bytes_or_the_reason_why_it_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "image.jpg").write_bytes(b"anything")
    assert image_identity(tmp_path / "image.jpg") == sha256(b"anything")
    assert image_identity(tmp_path / "missing.jpg") == "image_missing"
    assert image_identity(tmp_path) == "image_not_a_file"
