"""The straightforward way: every pair decodes its panorama and forwards both persons, in every epoch."""

from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from extract.images.crops import crop_people
from extract.images.read import read_frame
from store.tables import Tables

_MEAN, _STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # ImageNet


class PairImages(Dataset[tuple[Tensor, Tensor, Tensor, int]]):
    """One pair per sample: two decoded panoramas and two normalised crops (3, S, S)."""

    def __init__(self, tables: Tables, paths: list[Path], crop_size: int) -> None:
        self.tables, self.paths, self.crop_size = tables, paths, crop_size

    def __len__(self) -> int:
        return len(self.tables.pair)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, int]:
        path = self.paths[self.tables.pair_frame[index]]
        crops = []
        for row in self.tables.pair[index]:
            crop = crop_people(read_frame(path), self.tables.box[row : row + 1], self.crop_size)[0]
            crops.append((crop.float() / 255 - _MEAN[:, None, None]) / _STD[:, None, None])
        return crops[0], crops[1], torch.from_numpy(self.tables.spatial[index]), int(self.tables.label[index] % 3)


class PairNet(nn.Module):
    """A ResNet18 with a small head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torchvision.models.resnet18(weights=None)
        self.backbone.fc = nn.Identity()
        self.head = nn.Sequential(nn.Linear(2 * 512 + 8, 256), nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 3))

    def forward(self, a: Tensor, b: Tensor, spatial: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.cat([self.backbone(a), self.backbone(b), spatial], dim=1))
        return logits


def seconds_per_pair(tables: Tables, paths: list[Path], pairs: int, workers: int = 2, batch: int = 16) -> float:
    """Seconds per pair of an epoch with a frozen backbone, measured on the first `pairs` pairs."""
    model = PairNet()
    model.backbone.requires_grad_(False).eval()
    optimizer = torch.optim.Adam(model.head.parameters(), lr=1e-3)
    data: Any = torch.utils.data.Subset(PairImages(tables, paths, 112), range(min(pairs, len(tables.pair))))
    start = perf_counter()
    for a, b, spatial, label in DataLoader(data, batch, shuffle=True, num_workers=workers):
        with torch.no_grad():
            visual_a, visual_b = model.backbone(a), model.backbone(b)
        loss = nn.functional.cross_entropy(model.head(torch.cat([visual_a, visual_b, spatial], dim=1)), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (perf_counter() - start) / len(data)
