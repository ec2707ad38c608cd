"""2D rotary positions: a token is turned by the row and column of its own cell (after RoFormer, 2104.09864).

Shape legend: B batch, T tokens, K attention heads, E width of one head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CONDITION_CELL = -1
"""The cell number of a token that lies on no cell (the condition): it is not rotated."""


class Rotary(NamedTuple):
    """Cosines and sines of the angles of some cells, each of shape (B or 1, 1, T, E / 2), float32."""

    cos: Tensor
    sin: Tensor


def rotary_2d(cells: Tensor, grid_width: int, head_width: int, base: float) -> Rotary:
    """Angles for a batch of cells.

    Half of the frequencies turn with the row, half with the column; they fall geometrically from 1 to
    about 1 / ``base`` radians per cell.

    Args:
        cells: (B, T) int64 cell numbers in raster order; ``CONDITION_CELL`` for "not rotated".
        grid_width: number of columns of the grid.
        head_width: E, a multiple of 4.
        base: ratio of the highest to the lowest frequency.
    """
    num_frequencies = head_width // 4
    exponents = torch.arange(num_frequencies, device=cells.device, dtype=torch.float32) / num_frequencies
    frequencies = base**-exponents
    on_grid = (cells != CONDITION_CELL).unsqueeze(-1)
    rows = torch.div(cells, grid_width, rounding_mode="floor").unsqueeze(-1) * on_grid
    columns = (cells % grid_width).unsqueeze(-1) * on_grid
    angles = torch.cat([rows * frequencies, columns * frequencies], dim=-1).unsqueeze(1)  # (B, 1, T, E/2)
    return Rotary(angles.cos(), angles.sin())


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Turns queries or keys (B, K, T, E) by the angles of their cells; the dtype is kept."""
    cos, sin = rotary.cos.to(x.dtype), rotary.sin.to(x.dtype)
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat([x1 * cos - x2 * sin, x1 * sin + x2 * cos], dim=-1)
