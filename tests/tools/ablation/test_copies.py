"""Copies of training images among token grids."""

from __future__ import annotations

import torch
from torch import Tensor

from heptapod.data.tokens import TokenSet
from heptapod.grid import GridSpec
from heptapod.tools.ablation import copies


def train_set(tokens: Tensor) -> TokenSet:
    """Token grids (M, views, N)."""
    grid = GridSpec(4, 5, vocabulary_size=8)
    return TokenSet([tokens], torch.zeros(len(tokens), dtype=torch.int64), [str(i) for i in range(len(tokens))], ["a"],
                    grid, list(range(tokens.shape[1])))  # fmt: skip


def test_grids_with_nine_tenths_of_their_cells_equal_are_copies() -> None:
    train = torch.randint(0, 8, (7, 2, 20), generator=torch.Generator().manual_seed(0))
    samples = torch.stack([train[3, 0], train[5, 1], train[0, 1], (train[2, 0] + 1) % 8])
    samples[1, :2] = (samples[1, :2] + 1) % 8  # 18 of 20 cells
    samples[2, :3] = (samples[2, :3] + 1) % 8  # 17
    nearest = copies.nearest_agreement(samples, train_set(train))
    assert nearest[:3].tolist() == [1.0, 0.9, 0.85]
    by_hand = (samples[:, None] == train.flatten(0, 1)[None]).double().mean(2).amax(1)
    assert torch.equal(nearest, by_hand)
    assert copies.copied_share(samples, train_set(train)) == 0.5
