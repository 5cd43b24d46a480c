"""The extraction that one writes in an hour, to compare a whole extraction with: no checks, no checksums, no resuming.

python tests/benchmarks/plain_script.py DATA FEATURES.h5 [BACKBONE] [CROP_SIZE] [WORKERS]

It imports nothing of stage2. A DataLoader decodes and crops a frame per sample, a plain ResNet in channels-last format
forwards 64 crops at a time, and h5py appends the rows. Boxes that reach over an edge are cut off.
"""

import json
import sys
from pathlib import Path
from typing import Any

import h5py
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_jpeg, read_file

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # ImageNet
BATCH = 64
PADDING = 0.2  # of the box, on all sides together


class Frames(Dataset[Tensor]):
    """The crops (P, 3, S, S) uint8 of each frame."""

    def __init__(self, data: Path, crop_size: int) -> None:
        self.crop_size = crop_size
        self.frames: list[tuple[str, list[list[float]]]] = []
        for file in sorted((data / "labels/labels_2d_activity_social_stitched").glob("*.json")):
            for name, objects in sorted(json.loads(file.read_text())["labels"].items()):
                boxes = [item["box"] for item in objects if item["label_id"].startswith("pedestrian:")]
                self.frames.append((str(data / "images/image_stitched" / file.stem / name), boxes))

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Tensor:
        path, boxes = self.frames[index]
        image = decode_jpeg(read_file(path), mode=ImageReadMode.RGB)
        crops = [self._crop(image, box) for box in boxes]
        return torch.stack(crops) if crops else torch.empty((0, 3, self.crop_size, self.crop_size), dtype=torch.uint8)

    def _crop(self, image: Tensor, box: list[float]) -> Tensor:
        x, y, w, h = box
        x, y, w, h = x - w * PADDING / 2, y - h * PADDING / 2, w * (1 + PADDING), h * (1 + PADDING)
        left, top = max(0, int(x)), max(0, int(y))
        right, bottom = max(left + 1, int(x + w)), max(top + 1, int(y + h))
        part = image[:, min(top, image.shape[1] - 1) : bottom, min(left, image.shape[2] - 1) : right]
        size = (self.crop_size, self.crop_size)
        return F.interpolate(part[None], size, mode="bilinear", antialias=True)[0]


def main(data: str, out: str, backbone: str = "resnet18", crop_size: str = "112", workers: str = "2") -> None:
    """Writes the features of all people, in the order of the annotations."""
    model = getattr(torchvision.models, backbone)(weights=None)
    dim, model.fc = model.fc.in_features, torch.nn.Identity()
    model = model.eval().to(memory_format=torch.channels_last)
    loader: Any = DataLoader(Frames(Path(data), int(crop_size)), batch_size=None, num_workers=int(workers))
    waiting: list[Tensor] = []
    with h5py.File(out, "w") as file, torch.inference_mode():
        features = file.create_dataset("features", (0, dim), "float16", maxshape=(None, dim), chunks=(256, dim))
        for crops in loader:
            waiting.append(crops)
            if sum(map(len, waiting)) >= BATCH:
                _append(features, model, torch.cat(waiting))
                waiting = []
        if waiting:
            _append(features, model, torch.cat(waiting))


def _append(features: h5py.Dataset, model: torch.nn.Module, crops: Tensor) -> None:
    batch = (crops.float() / 255 - MEAN[:, None, None]) / STD[:, None, None]
    rows = model(batch.contiguous(memory_format=torch.channels_last)).half().numpy()
    features.resize(len(features) + len(rows), axis=0)
    features[len(features) - len(rows) :] = rows


if __name__ == "__main__":
    main(*sys.argv[1:])
