"""Random tables, features, images and batches for tests."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from classify.data.batches import PairBatch
from classify.data.crop_cache import PersonInputs
from classify.data.crops import CropSource
from classify.data.selection import select_split
from classify.model.checkpoint import CACHED, END_TO_END, RunInfo, save_checkpoint
from classify.model.head import Stage2Model, build_head
from classify.run_folder import RunFolder
from classify.train.cached import train_cached
from classify.train.run import Run
from configs.resnet_stage2_config import ResNetStage2Config
from configs.splits import SceneSplit
from extract.backbones.weights import load_backbone, load_resnet
from extract.recipe import feature_recipe
from store.tables import Features, Tables

LABELS = ("walking together", "standing together", "sitting together")
IDENTITY = {"name": "tiny", "weights_sha256": "0"}  # of the backbone that made the features
SPLIT = SceneSplit(train=("a", "b"), val=("c",), test=("d",))


def make_tables(
    scenes: tuple[str, ...] = ("a", "b", "c", "d"), frames: int = 10, people: int = 6, pairs: int = 5, seed: int = 0
) -> Tables:
    """Scenes with `frames` frames each, `people` people and `pairs` pairs per frame, and random values."""
    rng = np.random.default_rng(seed)
    count = len(scenes) * frames
    offset = np.arange(count + 1, dtype=np.int64) * people
    chosen = [rng.choice(people * (people - 1) // 2, pairs, replace=False) for _ in range(count)]
    first, second = np.triu_indices(people, 1)
    pair = np.concatenate([np.stack([first[p], second[p]], axis=1) + offset[f] for f, p in enumerate(chosen)])
    total = count * people
    box = np.stack([rng.uniform(0, 300, total), rng.uniform(0, 40, total), *rng.uniform(8, 30, (2, total))], axis=1)
    return Tables(
        scenes=scenes,
        frame_scene=np.repeat(np.arange(len(scenes), dtype=np.int32), frames),
        frame_name=np.array([f"{index:06d}.jpg" for index in np.tile(np.arange(frames), len(scenes))]),
        frame_index=np.tile(np.arange(frames, dtype=np.int32), len(scenes)),
        frame_size=np.tile(np.array([320, 80], dtype=np.int32), (count, 1)),
        frame_offset=offset,
        box=box,
        person_id=np.tile(np.arange(people, dtype=np.int64), count),
        pair=pair.astype(np.int64),
        pair_frame=np.repeat(np.arange(count, dtype=np.int32), pairs),
        spatial=rng.random((count * pairs, 8), dtype=np.float32),
        label=rng.integers(0, len(LABELS), count * pairs).astype(np.int32),
        label_sets=tuple((label,) for label in LABELS),
    )


def make_features(
    tables: Tables, dim: int = 16, signal: float = 3.0, seed: int = 0, views: int = 1, dtype: Any = np.float32
) -> Features:
    """Standard normal features; both persons of a pair have `signal` added to the feature of the pair's label."""
    rng = np.random.default_rng(seed)
    visual = rng.standard_normal((len(tables.box), dim)).astype(np.float32)
    for (a, b), label in zip(tables.pair, tables.label, strict=True):
        visual[[a, b], label] += signal
    flipped = (visual + 0.01).astype(dtype) if views == 2 else None
    return Features(tables, visual.astype(dtype), flipped, f"fingerprint-{seed}")


def small_config(folder: Path | str = "", **settings: Any) -> ResNetStage2Config:
    """A configuration of a run that takes less than a second."""
    values: dict[str, Any] = {
        "split": SPLIT,
        "epochs": 3,
        "batch_size": 8,
        "visual_feature_dim": 12,
        "hidden_dim": 16,
        "learning_rate": 3e-3,
        "device": "cpu",
        "num_workers": 0,
        "crop_size": 32,
        "checkpoint_dir": str(folder),
    }
    return ResNetStage2Config(**(values | settings))


def with_labels(tables: Tables, labels: np.ndarray[Any, Any], sets: tuple[tuple[str, ...], ...]) -> Tables:
    """The tables with the given labels and label sets."""
    return replace(tables, label=labels.astype(np.int32), label_sets=sets)


def write_images(tables: Tables, folder: Path, seed: int = 0) -> list[Path]:
    """Writes a random JPEG for each frame; returns the paths in the order of the frame table."""
    rng = np.random.default_rng(seed)
    paths = []
    for scene, name in zip(tables.frame_scene, tables.frame_name, strict=True):
        path = folder / tables.scenes[scene] / str(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        blocks = rng.integers(0, 256, (10, 40, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((320, 80), Image.Resampling.NEAREST).save(path, quality=95)
        paths.append(path)
    return paths


def train_head(features: Features, config: ResNetStage2Config, **options: Any) -> Run:
    """Trains one head on the features of a backbone called "tiny"; `options` as for `train_cached`."""
    return train_cached(features, [config], IDENTITY, **options)[0]


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's metrics.jsonl, one per epoch."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def crop_batches(
    tables: Tables, inputs: PersonInputs, seed: int | None = 3, split: str = "train", **settings: Any
) -> list[PairBatch]:
    """The batches of one epoch of a `CropSource`, shuffled by `seed` or in table order."""
    config = small_config(**settings)
    source = CropSource(tables, inputs, select_split(tables, config, split), config, device=torch.device("cpu"))
    return list(source.epoch(None if seed is None else torch.Generator().manual_seed(seed)))


def equal_batches(one: list[PairBatch], two: list[PairBatch]) -> bool:
    """Whether two epochs have equal batches, memory layout included."""
    return len(one) == len(two) and all(
        torch.equal(getattr(a, name), getattr(b, name)) and getattr(a, name).stride() == getattr(b, name).stride()
        for a, b in zip(one, two, strict=True)
        for name in PairBatch.__slots__
    )


class TinyBackbone(nn.Module):
    """Convolution, BatchNorm and mean: (P, 3, S, S) uint8 -> (P, 8) float32; freezes like `Backbone`."""

    out_dim = 8

    def __init__(self, freeze: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, self.out_dim, 4, stride=4)
        self.norm = nn.BatchNorm2d(self.out_dim)
        self.frozen = freeze
        self.requires_grad_(not freeze)
        self.train(not freeze)

    def train(self, mode: bool = True) -> "TinyBackbone":
        super().train(mode and not self.frozen)
        return self

    def forward(self, crops: Tensor) -> Tensor:
        return torch.relu(self.norm(self.conv(crops.float() / 255))).mean((2, 3))


def make_random_run(folder: Path, mode: str = CACHED, **settings: Any) -> tuple[Path, Stage2Model]:
    """Creates a run folder with a random model on crops of 32 pixels; returns both."""
    values = {"weights": "random", "crop_size": 32, "freeze_backbone": mode == CACHED, "visual_feature_dim": 12}
    config = ResNetStage2Config(**(values | {"hidden_dim": 16} | settings))
    loaded = load_backbone(config.backbone_name, "random")
    backbone: nn.Module = loaded.backbone
    identity = feature_recipe(loaded, 32, "float32", 1, "float32").identity()
    torch.manual_seed(3)
    if mode == END_TO_END:  # its weights and BatchNorm statistics differ from the initial ones
        backbone = load_resnet(config.backbone_name, "random", freeze=True)
        for tensor in backbone.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(1 + 0.1 * torch.rand_like(tensor))
    head = build_head(config, loaded.backbone.out_dim)
    head.fit_scale([torch.rand(50, loaded.backbone.out_dim)], torch.rand(50, 8))
    model = Stage2Model(backbone, head).eval()
    info = RunInfo(mode, config, loaded.backbone.out_dim, identity, "", (1.0,) * len(config.classes))
    saved = model if mode == END_TO_END else Stage2Model(nn.Identity(), head)
    save_checkpoint(RunFolder(folder).best_model, info, saved, {"epoch": 1})
    return folder, model
