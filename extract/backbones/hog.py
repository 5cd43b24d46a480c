"""Histograms of oriented gradients: the features that a trained backbone has to beat, with a backbone's interface.

Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection" (CVPR 2005): centred differences without
smoothing, at each pixel the colour channel with the strongest gradient, votes shared linearly between neighbouring
orientations and cells, overlapping blocks of 2 x 2 cells, L2-Hys. Left out: gamma and the block's Gaussian window.
"""

import math

import torch
from torch import Tensor, nn

HOG = "hog"
BINS = 9  # unsigned orientations of 20 degrees each
CELLS = 7  # a side of the crop, so a cell has 16 pixels at the default crop size of 112
BLOCK = 2  # cells a side, one cell apart
CLIP = 0.2  # of L2-Hys
EPSILON = 1e-3  # gradient strength, of a pixel range of [0, 1], below which a block counts as even
DIM = (CELLS - BLOCK + 1) ** 2 * BLOCK**2 * BINS  # 6 x 6 blocks of 36 values: 1296


class Hog(nn.Module):
    """uint8 crops (P, 3, S, S) in [0, 255] -> float32 features (P, 1296) in [0, 1]; nothing in it can be trained.

    A feature stands at ((block row, block column), (cell row, cell column) within the block, orientation), row-major.
    Cells have S / 7 pixels, a broken number where 7 does not divide S: votes are shared between cells anyway.
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
        magnitude, angle = _gradients(crops.float())  # (P, S, S) each
        turn = angle * (BINS / math.pi)  # orientations of [0, BINS], a half turn being the whole circle
        votes = torch.stack([magnitude * _share(turn - bin_ - 0.5) for bin_ in range(BINS)], dim=1)  # (P, 9, S, S)
        places = _places(crops.shape[-1]).to(crops.device)
        cells = places @ votes @ places.T  # (P, 9, 7, 7)
        return _normalised(_blocks(cells)).flatten(1)


def _gradients(crops: Tensor) -> tuple[Tensor, Tensor]:
    """(P, 3, S, S) -> strength (P, S, S), of a pixel range of [0, 1], and direction in [0, pi] at each pixel.

    Beyond the border the border goes on. Of the channels the strongest counts, of several the first; on whole
    numbers, so that rounding decides nothing.
    """
    dx = torch.cat((crops[..., 1:], crops[..., -1:]), 3) - torch.cat((crops[..., :1], crops[..., :-1]), 3)
    dy = torch.cat((crops[..., 1:, :], crops[..., -1:, :]), 2) - torch.cat((crops[..., :1, :], crops[..., :-1, :]), 2)
    strength = dx.square() + dy.square()
    best_dx, best_dy, best = dx[:, 0], dy[:, 0], strength[:, 0]
    for channel in range(1, crops.shape[1]):  # comparisons, where argmax would leave ties to the device
        stronger = strength[:, channel] > best
        best_dx = torch.where(stronger, dx[:, channel], best_dx)
        best_dy = torch.where(stronger, dy[:, channel], best_dy)
        best = torch.where(stronger, strength[:, channel], best)
    angle = torch.atan2(best_dy, best_dx)
    return best.sqrt() / 255, torch.where(angle < 0, angle + math.pi, angle)


def _share(away: Tensor) -> Tensor:
    """The vote for an orientation that lies so many bins away, the short way round; 0 from one bin on."""
    away = away.abs()
    return (1 - torch.minimum(away, BINS - away)).clamp_min(0)


def _places(size: int) -> Tensor:
    """(7, S) the share of each pixel's vote that each cell gets, linear in its distance, divided by the cell's size.

    Pixels beyond the outermost centres keep only their share for the outermost cell.
    """
    center = (torch.arange(size, dtype=torch.float64) + 0.5) * (CELLS / size) - 0.5  # pixels, in cells
    share = 1 - (center - torch.arange(CELLS, dtype=torch.float64)[:, None]).abs()
    return (share.clamp_min(0) * (CELLS / size)).float()


def _blocks(cells: Tensor) -> Tensor:
    """(P, 9, 7, 7) -> (P, 36 blocks, 36)."""
    side = CELLS - BLOCK + 1
    corners = [cells[:, :, row : row + side, column : column + side] for row in range(BLOCK) for column in range(BLOCK)]
    return torch.stack(corners, dim=1).permute(0, 3, 4, 1, 2).flatten(3).flatten(1, 2)  # from (P, 4, 9, 6, 6)


def _normalised(blocks: Tensor) -> Tensor:
    """L2-Hys: to length 1, clipped, to length 1 again."""
    return _unit(_unit(blocks).clamp_max(CLIP))


def _unit(blocks: Tensor) -> Tensor:
    return blocks / (blocks.square().sum(-1, keepdim=True) + EPSILON**2).sqrt()
