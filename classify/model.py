"""The model is backbone + head; the cache is the backbone's output."""

from torch import Tensor, nn

from classify.batches import PairBatch
from classify.distributed import gathered
from classify.head import FusionHead


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
        return gathered(own, batch.count)

    def trainable(self) -> list[nn.Parameter]:
        """The parameters that training moves; frozen ones are left out."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]
