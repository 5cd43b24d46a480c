"""The exported classifier: one module from crops and boxes to probabilities."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from classify.model.head import FusionHead
from configs.panorama import AUTO, edges_touch


class ClassifierInputs(NamedTuple):
    """The inputs for B pairs of P people, from one or several frames."""

    crops: Tensor  # (P, 3, S, S) uint8, see extract.images.crops.crop_people
    boxes: Tensor  # (P, 4) float32 x y width height in pixels of the frame, widths and heights above 0
    size: Tensor  # (B, 2) int64 width and height in pixels of the pair's frame
    people: Tensor  # (B,) int64 number of people in the pair's frame, including those without a crop
    a: Tensor  # (B,) int64 rows of `crops` and `boxes`
    b: Tensor  # (B,) int64 rows of `crops` and `boxes`


class PairClassifier(nn.Module):
    """`ClassifierInputs` -> probabilities (B, C) float32, the same for (A, B) and (B, A)."""

    def __init__(self, backbone: nn.Module, head: FusionHead, panorama: str = AUTO) -> None:
        """`panorama`: see `configs.panorama.edges_touch`."""
        super().__init__()
        self.panorama = panorama
        self.backbone = backbone
        self.head = head
        self.requires_grad_(False)
        self.eval()

    def forward(self, crops: Tensor, boxes: Tensor, size: Tensor, people: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """See `ClassifierInputs`."""
        spatial = pair_spatial(boxes[a], boxes[b], size, people, self.panorama)
        logits: Tensor = self.head(self.backbone(crops), a, b, spatial)
        return logits.softmax(1)


def pair_spatial(box_a: Tensor, box_b: Tensor, size: Tensor, people: Tensor, panorama: str = AUTO) -> Tensor:
    """`extract.annotations.spatial.spatial_features` in torch operators: (B, 4) twice, (B, 2), (B,) -> (B, 8) float32.

    Both compute in float64, so they round identically.
    """
    xa, ya, wa, ha = box_a.double().unbind(1)
    xb, yb, wb, hb = box_b.double().unbind(1)
    width, height = size.double().unbind(1)
    dx = ((xa + wa / 2) - (xb + wb / 2)).abs()
    around = dx - (dx / width).floor() * width  # the remainder; not every runtime has `%` for float64
    dx = torch.where(edges_touch(panorama, width, height), torch.minimum(around, width - around), dx)
    dy = ((ya + ha / 2) - (yb + hb / 2)).abs()
    overlap = (torch.minimum(ya + ha, yb + hb) - torch.maximum(ya, yb)).clamp_min(0)
    area_a, area_b = wa * ha, wb * hb
    columns = (
        (dx - (wa + wb) / 2) / width,
        torch.minimum(ha, hb) / torch.maximum(ha, hb),
        dx / width,
        overlap / torch.minimum(ha, hb),
        torch.minimum(area_a, area_b) / torch.maximum(area_a, area_b),
        (dx.square() + dy.square()).sqrt() / (area_a + area_b).sqrt(),
        dy / height,
        (people.double() / 10).clamp_max(1),
    )
    return torch.stack(columns, dim=1).float()
