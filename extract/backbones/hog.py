"""Histograms of oriented gradients (HOG): a hand-crafted baseline with the interface of a backbone.

Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection" (CVPR 2005): centred differences without
smoothing, the colour channel with the strongest gradient at each pixel, votes interpolated linearly between
neighbouring orientations and cells, overlapping blocks of 2 x 2 cells, L2-Hys normalisation. Not implemented: gamma
correction and the Gaussian window over a block.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

HOG = "hog"
BINS = 9  # unsigned orientations of 20 degrees each
CELLS = 7  # per side of the crop: a cell has 16 x 16 pixels at the default crop size of 112
BLOCK = 2  # cells per side; the stride is one cell
CLIP = 0.2  # limit of L2-Hys
EPSILON = 1e-3  # avoids amplified noise in blocks without gradients, for pixels in [0, 1]
DIM = (CELLS - BLOCK + 1) ** 2 * BLOCK**2 * BINS  # 6 x 6 blocks of 36 values: 1296


class Hog(nn.Module):
    """uint8 crops (P, 3, S, S) in [0, 255] -> float32 features (P, 1296) in [0, 1], without trainable parameters.

    Features are ordered by block row, block column, cell row and cell column in the block, and orientation.
    A cell has S / 7 pixels per side, which need not be an integer, because votes are interpolated between cells.
    """

    name = HOG
    layer = f"{BLOCK}x{BLOCK} blocks of {CELLS}x{CELLS} cells, {BINS} unsigned orientations"
    normalisation = f"L2-Hys {CLIP}"
    out_dim = DIM

    def __init__(self) -> None:
        super().__init__()
        self.eval()

    @torch.no_grad()
    def forward(self, crops: Tensor) -> Tensor:
        """(P, 3, S, S) uint8 -> (P, 1296) float32."""
        magnitude, angle = _gradients(crops.float())  # (P, S', S') each, see `_padding`
        orientation = angle * (BINS / math.pi)  # in [0, BINS]: angles of 0 and pi are the same orientation
        shares = [_bin_weight(orientation - (bin_ + 0.5)).mul_(magnitude) for bin_ in range(BINS)]
        votes = torch.stack(shares, dim=1)  # (P, 9, S', S')
        weights = _cell_weights(crops.shape[-1]).to(crops.device)
        cells = weights @ votes @ weights.T  # (P, 9, 7, 7)
        return _l2_hys(_blocks(cells)).flatten(1)


def _gradients(crops: Tensor) -> tuple[Tensor, Tensor]:
    """(P, 3, S, S) in [0, 255] -> magnitude (P, S', S'), for pixels in [0, 1], and angle in [0, pi].

    Border pixels are repeated. The channel with the strongest gradient is used; for equal ones the first. The
    comparison is exact, because pixels are integers.
    """
    dx = torch.cat((crops[..., 1:], crops[..., -1:]), 3) - torch.cat((crops[..., :1], crops[..., :-1]), 3)
    dy = torch.cat((crops[..., 1:, :], crops[..., -1:, :]), 2) - torch.cat((crops[..., :1, :], crops[..., :-1, :]), 2)
    squared = dx.square() + dy.square()
    best_dx, best_dy, best = dx[:, 0], dy[:, 0], squared[:, 0]
    for channel in range(1, crops.shape[1]):  # argmax would resolve ties differently on each device
        stronger = squared[:, channel] > best
        best_dx = torch.where(stronger, dx[:, channel], best_dx)
        best_dy = torch.where(stronger, dy[:, channel], best_dy)
        best = torch.where(stronger, squared[:, channel], best)
    missing = _padding(crops.shape[-1])
    best_dx, best_dy, best = (pad(values, (0, missing, 0, missing)) for values in (best_dx, best_dy, best))
    angle = torch.atan2(best_dy, best_dx)
    return best.sqrt() / 255, torch.where(angle < 0, angle + math.pi, angle)


def _padding(size: int) -> int:
    """Returns S' - S: rows and columns of zeros that make the side a multiple of 16.

    Vectorised operators may round the last numbers of an array differently, and matrix products those at another
    alignment. With whole vectors per row neither depends on a crop's position in its batch.
    """
    return -size % 16


def _bin_weight(difference: Tensor) -> Tensor:
    """Returns the weight of a vote for a bin at this difference (in bins, circular): 1 at 0, falling to 0 at 1."""
    distance = difference.abs()
    return torch.minimum(distance, BINS - distance).neg_().add_(1).clamp_min_(0)


def _cell_weights(size: int) -> Tensor:
    """Returns (7, S'): the weight of each pixel's vote in each cell, linear in the distance, divided by the cell size.

    Pixels beyond the outermost cell centres vote with a reduced weight for the outermost cell only.
    """
    center = (torch.arange(size, dtype=torch.float64) + 0.5) * (CELLS / size) - 0.5  # of the pixels, in cells
    weight = 1 - (center - torch.arange(CELLS, dtype=torch.float64)[:, None]).abs()
    return pad((weight.clamp_min(0) * (CELLS / size)).float(), (0, _padding(size)))


def _blocks(cells: Tensor) -> Tensor:
    """(P, 9, 7, 7) -> (P, 36 blocks, 36)."""
    side = CELLS - BLOCK + 1
    corners = [cells[:, :, row : row + side, column : column + side] for row in range(BLOCK) for column in range(BLOCK)]
    return torch.stack(corners, dim=1).permute(0, 3, 4, 1, 2).flatten(3).flatten(1, 2)  # from (P, 4, 9, 6, 6)


def _l2_hys(blocks: Tensor) -> Tensor:
    """Normalises to length 1, clips, and normalises again."""
    return _normalise(_normalise(blocks).clamp_max(CLIP))


def _normalise(blocks: Tensor) -> Tensor:
    return blocks / (blocks.square().sum(-1, keepdim=True) + EPSILON**2).sqrt()
