"""The order in which cells are filled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from heptapod.objective import draw_token_order
from heptapod.random import KeyedGenerator, Stream


def fill_order(
    kind: Literal["raster", "random"], seeds: Sequence[int], num_cells: int, known: Tensor | None = None
) -> Tensor:
    """Token order of every image, known cells first.

    Args:
        kind: raster, or a random permutation from each image's seed.
        seeds: one per image.
        num_cells: N.
        known: (N,) bool, cells that are given; they are read first, in the same order among themselves.

    Returns:
        (B, N) int64.
    """
    order = draw_token_order(kind, num_cells, KeyedGenerator(Stream.SAMPLE_ORDER, [(seed,) for seed in seeds]))
    if known is None:
        return order
    unknown_rank = (~known)[order].long()
    return order.gather(1, torch.argsort(unknown_rank, dim=1, stable=True))
