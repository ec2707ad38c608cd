"""The order in which cells are filled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from heptapod.configs.sampling import SamplingOrder
from heptapod.objective import draw_token_order
from heptapod.utils.random import KeyedGenerator, Stream
from heptapod.utils.spread import spread_order


def fill_order(
    kind: SamplingOrder, seeds: Sequence[int], height: int, width: int, known: Tensor | None = None
) -> Tensor:
    """Token order of every image, known cells first.

    Args:
        kind: raster; a random permutation from each image's seed; spread, in which consecutive cells lie far apart,
            from the seed too; a spiral from the center outwards; confidence, of which only the known cells are ordered
            here (as raster), for the others follow from the model's predictions.
        seeds: one per image.
        height: rows of the grid.
        width: columns of the grid.
        known: (N,) bool, cells that are given; they are read first, in the same order among themselves.

    Returns:
        (B, N) int64.
    """
    if kind == "spiral":
        order = spiral(height, width).expand(len(seeds), -1)
    elif kind == "spread":
        order = spread_order(height, width, KeyedGenerator(Stream.SAMPLE_ORDER, [(seed,) for seed in seeds]))
    else:
        generator = KeyedGenerator(Stream.SAMPLE_ORDER, [(seed,) for seed in seeds])
        order = draw_token_order("random" if kind == "random" else "raster", height * width, generator)
    if known is None:
        return order
    unknown_rank = (~known)[order].long()
    return order.gather(1, torch.argsort(unknown_rank, dim=1, stable=True))


def spiral(height: int, width: int) -> Tensor:
    """(N,) int64: cells from the center outwards, ring after ring; each is clockwise and ends in its upper left."""
    cells: list[int] = []
    top, left, bottom, right = 0, 0, height - 1, width - 1
    while top <= bottom and left <= right:  # from the outermost ring inwards, counter-clockwise; turned around below
        ring = [(row, left) for row in range(top, bottom + 1)]
        ring += [(bottom, column) for column in range(left + 1, right + 1)]
        if right > left:
            ring += [(row, right) for row in range(bottom - 1, top - 1, -1)]
        if bottom > top:
            ring += [(top, column) for column in range(right - 1, left, -1)]
        cells += [row * width + column for row, column in ring]
        top, left, bottom, right = top + 1, left + 1, bottom - 1, right - 1
    return torch.tensor(cells[::-1])


def split_by_confidence(unread: Tensor, uncertainty: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The most certain of the unread cells, and the rest.

    Args:
        unread: (B, U) int64, in raster order.
        uncertainty: (B, U).
        count: k, how many to choose.

    Returns:
        The chosen cells (B, k), the most certain first and ties in raster order; their places in ``unread`` (B, k); the
        other cells (B, U − k) in raster order.
    """
    rank = uncertainty.argsort(dim=1, stable=True)
    chosen, rest = rank[:, :count], rank[:, count:].sort(dim=1).values
    return unread.gather(1, chosen), chosen, unread.gather(1, rest)
