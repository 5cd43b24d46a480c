"""The fusion head, from the features of two persons and their spatial features to logits, and the whole model."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classify.data.batches import PairBatch
from classify.distributed import all_gather_features
from configs.resnet_stage2_config import ResNetStage2Config
from extract.annotations.spatial import NUM_GEOMETRIC, SPATIAL_DIM

SPATIAL_EMBEDDING_DIM = 64
STD_FLOOR = 0.01  # smallest standard deviation, as a fraction of the mean over all features


class FusionHead(nn.Module):
    """Projects each person once, fuses the persons of a pair with their spatial features, and classifies.

    Logits are bit-identical for (A, B) and (B, A): A and B are only combined by sums, products and absolute
    differences, which are commutative in floating point, before the next matrix product.

    With va, vb the projected persons and s the embedded spatial features, the fused vector is

    - concat: [va + vb, |va - vb|, s], from which the unordered pair (va, vb) can be reconstructed
    - bilinear: [(U va + u) * (U vb + u), s], a low-rank bilinear form
    - add: va + vb + s, with s embedded in the visual dimension

    `place` embeds the spatial features; the layers' names are part of the checkpoint format.
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
        used = torch.tensor([use_geometric] * NUM_GEOMETRIC + [use_scene_context] * (SPATIAL_DIM - NUM_GEOMETRIC))
        used = used.float()
        self.fusion = fusion
        self.register_buffer("visual_shift", torch.zeros(feature_dim))
        self.register_buffer("visual_scale", torch.ones(feature_dim))
        self.register_buffer("spatial_shift", torch.zeros(SPATIAL_DIM))
        self.register_buffer("spatial_scale", used.clone())
        self.register_buffer("spatial_used", used, persistent=False)
        embedding_dim = visual_dim if fusion == "add" else SPATIAL_EMBEDDING_DIM
        fused_dim = {
            "concat": 2 * visual_dim + embedding_dim,
            "bilinear": visual_dim + embedding_dim,
            "add": visual_dim,
        }
        self.project = nn.Linear(feature_dim, visual_dim)
        if fusion == "bilinear":
            self.interact = nn.Linear(visual_dim, visual_dim)
        self.place = nn.Linear(SPATIAL_DIM, embedding_dim)
        self.relation = nn.Linear(fused_dim[fusion], hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(hidden_dim, num_classes)

    def forward(self, features: Tensor, a: Tensor, b: Tensor, spatial: Tensor) -> Tensor:
        """Features (P, D) float32, their rows a and b (B,) int64, spatial (B, 8) float32 -> logits (B, C)."""
        persons = torch.addcmul(self.visual_shift, features, self.visual_scale)
        persons = F.relu(self.project(persons))  # (P, V)
        spatial = torch.addcmul(self.spatial_shift, spatial, self.spatial_scale)
        fused = self._fuse(persons, a, b, F.relu(self.place(spatial)))
        hidden = self.dropout(F.relu(self.relation(fused)))  # (B, H)
        logits: Tensor = self.classify(hidden)
        return logits

    def _fuse(self, persons: Tensor, a: Tensor, b: Tensor, embedded: Tensor) -> Tensor:
        """(P, V) persons and (B, L) embedded spatial features -> (B, fused)."""
        if self.fusion == "bilinear":
            persons = self.interact(persons)
        va, vb = F.embedding(a, persons), F.embedding(b, persons)  # (B, V); on a CPU its backward beats indexing
        if self.fusion == "bilinear":
            return torch.cat((va * vb, embedded), dim=1)
        if self.fusion == "add":
            return va + vb + embedded
        return torch.cat((va + vb, (va - vb).abs(), embedded), dim=1)

    @torch.no_grad()
    def fit_scale(self, features: Iterable[Tensor], spatial: Tensor) -> None:
        """Sets the standardisation from the training persons' features (chunks (n, D)) and pairs' spatial (M, 8).

        It is stored as scale and shift, so that applying it is one operator. Disabled spatial features get 0 for both.
        """
        mean, std = mean_and_std(features)
        self.visual_scale.copy_(1.0 / std)
        self.visual_shift.copy_(-mean / std)
        mean, std = mean_and_std([spatial])
        self.spatial_scale.copy_(self.spatial_used / std)
        self.spatial_shift.copy_(-mean / std * self.spatial_used)

    @torch.no_grad()
    def copy_scale(self, other: "FusionHead") -> None:
        """Copies the standardisation of another head."""
        for name, buffer in other.named_buffers():
            getattr(self, name).copy_(buffer)


def build_head(config: ResNetStage2Config, feature_dim: int) -> FusionHead:
    """The head of a configuration, for features of `feature_dim` dimensions."""
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
    """Mean and standard deviation (D,) float64 of all rows of chunks (n, D), n > 0; the latter at least the floor.

    The floor prevents a feature that hardly varies in training from dominating when it varies later. The moments of
    the chunks are merged pairwise (Chan, Golub and LeVeque, 1979), which is numerically stable.
    """
    count, mean, squares = 0, torch.zeros(()), torch.zeros(())
    for chunk in chunks:
        rows = chunk.to(torch.float64, copy=True)
        size, chunk_mean = len(rows), rows.mean(0)
        delta = chunk_mean - mean.to(chunk_mean.device)
        squares = (
            squares.to(chunk_mean.device)
            + rows.sub_(chunk_mean).square_().sum(0)  # in place: newly allocated memory takes longer than the sums
            + delta.square() * (count * size / (count + size))
        )
        mean = mean.to(chunk_mean.device) + delta * (size / (count + size))
        count += size
    std = (squares / count).sqrt()
    return mean, std.clamp_min(STD_FLOOR * float(std.mean()) + 1e-6)


class Stage2Model(nn.Module):
    """Backbone and head. In cached mode the batches contain features, and the backbone is the identity."""

    def __init__(self, backbone: nn.Module, head: FusionHead):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, batch: PairBatch) -> Tensor:
        """Batch of B pairs -> logits (B, C)."""
        logits: Tensor = self.head(self.features(batch), batch.a, batch.b, batch.spatial)
        return logits

    def features(self, batch: PairBatch) -> Tensor:
        """The backbone's output (P, D) for all persons of a batch, gathered from all ranks."""
        features: Tensor = self.backbone(batch.persons)
        return all_gather_features(features, batch.num_persons)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters that are not frozen."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]
