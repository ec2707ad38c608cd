"""Copies: samples whose token grids are almost those of a training image."""

from __future__ import annotations

import torch
from torch import Tensor

from heptapod.data.tokens import TokenSet

AGREEMENT = 0.9
"""Share of the cells in which a copy agrees with a training image."""
BLOCK = 1 << 26
"""Cells compared at a time."""


def copied_share(tokens: Tensor, train: TokenSet) -> float:
    """Share of token grids that agree with a training image's in at least 90% of the cells, in any view that is read.

    Args:
        tokens: (S, N) int64.
        train: discrete tokens of the training images.
    """
    best = nearest_agreement(tokens, train)
    return float((best >= AGREEMENT - 1e-9).double().mean())


def nearest_agreement(tokens: Tensor, train: TokenSet) -> Tensor:
    """The largest share of cells (S,) in which each grid (S, N) agrees with that of a training image; exact."""
    best = torch.zeros(len(tokens), dtype=torch.int64)
    tokens = tokens.to(torch.int32)
    size = max(1, BLOCK // max(1, tokens.numel()))
    for rows in torch.arange(len(train)).split(size):
        for view in train.views:
            grids = train.view(rows, view).to(torch.int32)
            equal = (tokens[:, None] == grids[None]).sum(2)
            best = torch.maximum(best, equal.max(1).values)
    return best.double() / tokens.shape[1]
