"""Cached and end-to-end mode agree: logits from stored features equal those of the frozen backbone on images."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from classify.data.batches import Source
from classify.data.cached import CachedFeatures, CachedSource
from classify.data.crops import CropSource, FrameCrops
from classify.data.selection import select_split
from classify.model.checkpoint import build_model, load_checkpoint
from classify.pipeline import train
from classify.run_folder import RunFolder
from classify.train.run import Run
from configs.extraction_config import ExtractionConfig
from configs.presets import preset
from configs.resnet_stage2_config import ResNetStage2Config
from configs.splits import JRDB_SPLIT
from configs.train_options import TrainOptions
from extract.backbones.weights import load_backbone
from extract.dataset import read_dataset
from extract.job import extract
from store.format.manifest import Selection
from store.reader import load_store
from tests.jrdb_folder import write_folder

SCENES = (JRDB_SPLIT.train[0], JRDB_SPLIT.val[0], JRDB_SPLIT.test[0])
CPU = torch.device("cpu")
FLOAT16_BOUND = 5e-3  # relative to the largest logit; float16 features have 11 significant bits


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ResNetStage2Config:
    data = write_folder(tmp_path_factory.mktemp("data"), SCENES, frames=4, people=8)
    base = preset("resnet18_frozen").config(weights="random", crop_size=48, data_path=str(data), device="cpu", epochs=3)
    return replace(base, num_workers=0)


def cached_run(config: ResNetStage2Config, folder: Path, dtype: str) -> Run:
    store = str(folder / f"{dtype}.store")
    extraction = ExtractionConfig(data_path=config.data_path, store=store, weights="random", crop_size=48, dtype=dtype)
    extract(replace(extraction, device="cpu", num_workers=0))
    return train(replace(config, checkpoint_dir=str(folder / dtype)), TrainOptions(store=store))


def logits(run: Run, backbone: nn.Module, source: Source) -> Tensor:
    model = build_model(load_checkpoint(RunFolder(run.folder).best_model), backbone)
    with torch.no_grad():
        return torch.cat([model(batch) for batch in source.epoch()])


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("float16", FLOAT16_BOUND)])
def test_cached_logits_equal_end_to_end_logits(
    config: ResNetStage2Config, tmp_path: Path, dtype: str, bound: float
) -> None:
    run = cached_run(config, tmp_path, dtype)
    features = load_store(tmp_path / f"{dtype}.store")
    split = select_split(features.tables, config, "test")
    cached = logits(run, nn.Identity(), CachedSource(features.tables, CachedFeatures.load(features, CPU), split, 8))
    dataset = read_dataset(Path(config.data_path), Selection(1, "paired"), 0.0)
    split = select_split(dataset.tables, config, "test")
    backbone = load_backbone("resnet18", "random").backbone
    crops = FrameCrops(dataset.tables, dataset.image_paths, config.crop_size)
    images = logits(run, backbone, CropSource(dataset.tables, crops, split, config, device=CPU))
    assert cached.shape == images.shape
    assert float((cached - images).abs().max() / images.abs().max()) < bound
