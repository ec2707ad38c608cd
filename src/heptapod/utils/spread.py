"""The order spread: any few consecutive cells lie far apart, at every time."""

from __future__ import annotations

import torch
from torch import Tensor

from heptapod.utils.random import KeyedGenerator


def spread_order(height: int, width: int, generator: KeyedGenerator) -> Tensor:
    """A seeded order (B, N) int64 of the cells whose consecutive cells are spread over the grid.

    It is that of a Bayer matrix: four consecutive cells come from the four quarters of the grid, sixteen from its
    sixteenths, and so on, at the same places of each. At every level it is random which quarter comes first and which
    of the next two quarters follows; the second is always diagonally opposite to the first. The whole is shifted at
    random, around the edges.

    Args:
        height: rows of the grid.
        width: columns of the grid.
        generator: one stream per image.
    """
    rows, columns = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
    row_bits, column_bits = (height - 1).bit_length(), (width - 1).bit_length()
    # Stretched to powers of two, so that the halves of every level are about as large as each other.
    rows = (2 * rows + 1) * 2**row_bits // (2 * height)
    columns = (2 * columns + 1) * 2**column_bits // (2 * width)
    down, across = generator.uniform(2).unbind(1)  # (B,) each
    rows = (rows + (down * 2**row_bits).long().unsqueeze(1)) % 2**row_bits  # (B, N)
    columns = (columns + (across * 2**column_bits).long().unsqueeze(1)) % 2**column_bits
    key = torch.zeros(len(generator), height * width, dtype=torch.long)
    levels = max(row_bits, column_bits)
    for level in range(levels):  # from the coarsest, which changes fastest, to the finest
        bit = levels - 1 - level
        lower, right = rows >> bit & 1, columns >> bit & 1  # a shorter side has no such bit: 0
        first, second, third = (generator.uniform(3) < 0.5).long().unsqueeze(2).unbind(1)  # (B, 1) each
        diagonal = lower ^ right ^ first
        key += 2 * diagonal + (lower ^ torch.where(diagonal.bool(), second, third)) << 2 * level
    return key.argsort(dim=1, stable=True)
