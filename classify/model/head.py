"""The fusion head: two persons' features and their spatial features -> logits, the same for (A, B) and (B, A)."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.data.batches import PairBatch
from classify.distributed import all_gather_features
from configs.resnet_stage2_config import ResNetStage2Config
from extract.annotations.spatial import NUM_GEOMETRIC, SPATIAL_DIM

PLACE_DIM = 64  # width of the embedded spatial features
STD_FLOOR = 0.01  # share of the mean deviation below which a feature is not blown up further


class FusionHead(nn.Module):
    """Projects each person once, fuses the two of a pair with their spatial features, and classifies.

    Symmetric by construction: A and B meet only in sums, products and absolute differences, which floating-point
    arithmetic computes alike in both orders, before anything is multiplied by a matrix.

    - concat: [va + vb, |va - vb|, place], which holds the unordered pair (va, vb) completely
    - bilinear: [(U va + u) * (U vb + u), place], a low-rank bilinear form
    - add: va + vb + place, with `place` embedded in the visual dimension
    """

    visual_shift: Tensor
    visual_scale: Tensor
    spatial_shift: Tensor
    spatial_scale: Tensor
    spatial_used: Tensor

    def __init__(
        self,
        feature_dim: int,
        visual_dim: int,
        fusion: str,
        *,
        num_classes: int,
        hidden_dim: int,
        dropout: float,
        use_geometric: bool = True,
        use_scene_context: bool = True,
    ):
        super().__init__()
        used = [use_geometric] * NUM_GEOMETRIC + [use_scene_context] * (SPATIAL_DIM - NUM_GEOMETRIC)
        self.fusion = fusion
        self.register_buffer("visual_shift", torch.zeros(feature_dim))
        self.register_buffer("visual_scale", torch.ones(feature_dim))
        self.register_buffer("spatial_shift", torch.zeros(SPATIAL_DIM))
        self.register_buffer("spatial_scale", torch.tensor(used, dtype=torch.float32))
        self.register_buffer("spatial_used", torch.tensor(used, dtype=torch.float32), persistent=False)
        place_dim = visual_dim if fusion == "add" else PLACE_DIM
        fused_dim = {"concat": 2 * visual_dim + place_dim, "bilinear": visual_dim + place_dim, "add": visual_dim}
        self.project = nn.Linear(feature_dim, visual_dim)
        if fusion == "bilinear":
            self.interact = nn.Linear(visual_dim, visual_dim)
        self.place = nn.Linear(SPATIAL_DIM, place_dim)
        self.relation = nn.Linear(fused_dim[fusion], hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(hidden_dim, num_classes)

    def forward(self, features: Tensor, a: Tensor, b: Tensor, spatial: Tensor) -> Tensor:
        """Features (P, D) float32, a and b (B,) int64 rows of it, spatial (B, 8) float32 -> logits (B, C)."""
        persons = torch.addcmul(self.visual_shift, features, self.visual_scale)
        persons = F.relu(self.project(persons))  # (P, V)
        place = torch.addcmul(self.spatial_shift, spatial, self.spatial_scale)
        fused = self._fuse(persons, a, b, F.relu(self.place(place)))
        hidden = self.dropout(F.relu(self.relation(fused)))  # (B, H)
        logits: Tensor = self.classify(hidden)
        return logits

    def _fuse(self, persons: Tensor, a: Tensor, b: Tensor, place: Tensor) -> Tensor:
        """(P, V) persons and (B, L) places -> (B, fused). `embedding` gathers rows with a fast backward on CPU."""
        if self.fusion == "bilinear":
            persons = self.interact(persons)
        va, vb = F.embedding(a, persons), F.embedding(b, persons)  # (B, V)
        if self.fusion == "bilinear":
            return torch.cat((va * vb, place), dim=1)
        if self.fusion == "add":
            return va + vb + place
        return torch.cat((va + vb, (va - vb).abs(), place), dim=1)

    @torch.no_grad()
    def fit_scale(self, features: Iterable[Tensor], spatial: Tensor) -> None:
        """Standardises by the training persons' features, in chunks (n, D), and the training pairs' spatial (M, 8).

        Kept as scale and shift, so that standardising is one operator; spatial groups that are switched off get 0.
        """
        mean, std = mean_and_std(features)
        self.visual_scale.copy_(1.0 / std)
        self.visual_shift.copy_(-mean / std)
        mean, std = mean_and_std([spatial])
        self.spatial_scale.copy_(self.spatial_used / std)
        self.spatial_shift.copy_(-mean / std * self.spatial_used)

    @torch.no_grad()
    def copy_scale(self, other: "FusionHead") -> None:
        """Takes over what `fit_scale` found for another head."""
        for name, buffer in other.named_buffers():
            getattr(self, name).copy_(buffer)


def build_head(config: ResNetStage2Config, feature_dim: int) -> FusionHead:
    """The head that `config` describes, on features of `feature_dim` dimensions."""
    return FusionHead(
        feature_dim,
        config.visual_feature_dim,
        config.fusion_strategy,
        num_classes=len(config.classes),
        hidden_dim=config.hidden_dim,
        dropout=config.dropout,
        use_geometric=config.use_geometric,
        use_scene_context=config.use_scene_context,
    )


def mean_and_std(chunks: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and deviation (D,) float64 of all rows of chunks (n, D), n > 0; no deviation is below the floor.

    The floor keeps a feature that hardly varies in training from drowning all others when it does later. Each chunk's
    moments are merged into those of the chunks before it (Chan, Golub and LeVeque, 1979), which loses no digits.
    """
    count, mean, square = 0, torch.zeros(()), torch.zeros(())
    for chunk in chunks:
        rows = chunk.double()
        size, center = len(rows), rows.mean(0)
        apart = center - mean.to(center.device)
        square = (
            square.to(center.device)
            + (rows - center).square().sum(0)
            + apart.square() * (count * size / (count + size))
        )
        mean = mean.to(center.device) + apart * (size / (count + size))
        count += size
    std = (square / count).sqrt()
    return mean, std.clamp_min(STD_FLOOR * float(std.mean()) + 1e-6)


class Stage2Model(nn.Module):
    """Persons -> features -> logits. In cached mode the persons are features and the backbone is the identity."""

    def __init__(self, backbone: nn.Module, head: FusionHead):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, batch: PairBatch) -> Tensor:
        """Logits (B, C) of a batch of B pairs."""
        logits: Tensor = self.head(self.features(batch), batch.a, batch.b, batch.spatial)
        return logits

    def features(self, batch: PairBatch) -> Tensor:
        """The backbone's output (P, D) for the persons of a batch, those of other ranks included."""
        own: Tensor = self.backbone(batch.persons)
        return all_gather_features(own, batch.num_persons)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters that training moves; frozen ones are left out."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]
