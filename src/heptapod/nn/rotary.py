"""2D rotary positions: a token is turned by the row and column of its cell (after RoFormer, 2104.09864).

Shape legend: B batch, T tokens, K attention heads, E width of one head.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

CONDITION_CELL = -1
"""The cell index of a token without a cell (the condition): it is not rotated."""


class Rotary(NamedTuple):
    """Cosines and signed sines of the angles of some cells, each of shape (B or 1, T, 1, E), float32.

    The halves of the last dimension turn together: the cosines stand twice, the sines once negated and once not.
    """

    cos: Tensor
    sin: Tensor


def rotary_2d(cells: Tensor, grid_height: int, grid_width: int, head_width: int, base: float) -> Rotary:
    """Angles for a batch of cells.

    Half of the frequencies turn with the row, half with the column; they fall geometrically from 1 to
    about 1 / ``base`` radians per cell.

    Args:
        cells: (B, T) int64 cell indices in raster order; ``CONDITION_CELL`` for "not rotated".
        grid_height: number of rows of the grid.
        grid_width: number of columns of the grid.
        head_width: E, a multiple of 4.
        base: ratio of the highest to the lowest frequency.
    """
    cos, sin = _table(grid_height, grid_width, head_width, base, cells.device)
    index = cells - CONDITION_CELL
    return Rotary(cos[index].unsqueeze(2), sin[index].unsqueeze(2))


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Turns queries or keys (B, T, K, E) by the angles of their cells; the dtype is kept."""
    cos, sin = rotary.cos.to(x.dtype), rotary.sin.to(x.dtype)
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


@lru_cache(maxsize=64)
def _table(
    grid_height: int, grid_width: int, head_width: int, base: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines of the condition (row 0) and of every cell: (1 + H·W, E) each."""
    with torch.inference_mode(False), torch.no_grad():  # a table first used in sampling may serve training later
        exponents = torch.arange(head_width // 4, device=device, dtype=torch.float32) / (head_width // 4)
        frequencies = base**-exponents
        rows = torch.arange(grid_height, device=device).repeat_interleave(grid_width)
        columns = torch.arange(grid_width, device=device).repeat(grid_height)
        angles = torch.cat([rows.unsqueeze(1) * frequencies, columns.unsqueeze(1) * frequencies], dim=1)
        angles = torch.cat([torch.zeros_like(angles[:1]), angles])
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([cos, cos], dim=1), torch.cat([-sin, sin], dim=1)


def forget_tables() -> None:
    """Clears the cache of angles; they are recomputed when needed."""
    _table.cache_clear()
