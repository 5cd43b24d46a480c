"""Finds JPEG files whose picture data ends early behind an intact end marker: libjpeg fills the rest with grey.

libjpeg (jdhuff.c) leaves the blocks that it has no data for at zero, which is the grey (128, 128, 128), and only warns.
A picture may honestly end in that grey, so the file is asked: without its last bytes a whole file loses its last blocks
alone, while a file that ends early loses blocks further up, where its data stopped.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_PROGRESSIVE = b"\xff\xc2"  # its start of frame (ITU T.81, table B.1); elsewhere in the header it does no harm
_GREY = 128
_CORNER = 8  # pixels: one block
_LAST_BYTES = 16  # of picture data; a grey block of 16 x 16 pixels takes 4
_LAST_ROWS = 32  # pixels that the last bytes of a whole file may reach


def ends_early(data: bytes, pixels: Tensor, decode: Callable[[bytes], Tensor]) -> bool:
    """Whether more than the last rows of `pixels` (3, H, W), decoded from `data` by `decode`, are filled up.

    A second decoding is done only where the last corner is exactly grey. Progressive files, whose last bytes refine the
    whole picture, are taken as they are. Damage inside the data that leaves it as long
    as it was is not found by this.
    """
    end = data.rfind(b"\xff\xd9")
    progressive = _PROGRESSIVE in data[: data.find(b"\xff\xda")]
    if progressive or end < _LAST_BYTES or not bool((pixels[:, -_CORNER:, -_CORNER:] == _GREY).all()):
        return False
    shorter = decode(data[: end - _LAST_BYTES].rstrip(b"\xff") + b"\xff\xd9")
    return not torch.equal(shorter[:, :-_LAST_ROWS], pixels[:, :-_LAST_ROWS])
